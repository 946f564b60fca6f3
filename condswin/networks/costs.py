"""What networks cost: parameters, FLOPs by branch, latency, training speed and peak memory."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from condswin.networks.blocks import ConditionalFeedForward, SwinBlock, parameter_count
from condswin.networks.tiles import WidePixels

aten = torch.ops.aten


@dataclass(frozen=True)
class Flops:
    """Floating point operations of one forward pass of a batch; a multiplication and an addition are two.

    Attributes:
        light: Light branches: attention and feed-forward that every patch gets (of the plain variant, all of them), and
            the choice of attended windows.
        heavy: Heavy branches: attention to routed patches, the feed-forward of routed patches, wide convolutions on
            routed tiles.
        router: Products of patches with router vectors; choosing is no product and is not counted.
        rest: Embedding, merging, expanding, joins, stem and output; of the networks of others, everything.
    """

    light: int
    heavy: int
    router: int
    rest: int

    @property
    def total(self) -> int:
        """Their sum."""
        return self.light + self.heavy + self.router + self.rest


@dataclass(frozen=True)
class Cost:
    """Measurements of one network.

    Attributes:
        parameters: Trainable numbers.
        flops: Of one batch, forward.
        latency: Seconds for one batch, inference, median.
        step: Seconds for one training step (forward, backward, AdamW), median.
        images_per_second: In training steps.
        inference_memory: Peak bytes of tensors that inference makes, beside weights and input.
        training_memory: Peak bytes of tensors that forward and backward make, gradients among them.
    """

    parameters: int
    flops: Flops
    latency: float
    step: float
    images_per_second: float
    inference_memory: int
    training_memory: int


def count_flops(network: nn.Module, image: Tensor) -> Flops:
    """Counts with PyTorch's FlopCounterMode, extended by the operators of ours that it does not know."""

    def product_with_vector(_: Any, matrix: Any, *others: Any, **__: Any) -> int:
        return 2 * int(matrix[0] * matrix[1])

    def attention(query: Any, key: Any, value: Any, *others: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    known = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten.mv: lambda matrix, vector, **_: 2 * int(matrix[0] * matrix[1]),
        aten.addmv: product_with_vector,
        aten.addmv_: product_with_vector,
    }
    counter = FlopCounterMode(display=False, custom_mapping=known)
    with counter, torch.no_grad():
        network.eval()(image)
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(network).__name__

    def of(*names: str) -> int:
        return sum(by_module.get(f"{root}.{name}", 0) for name in names)

    light = heavy = router = 0
    for name, block in network.named_modules():
        if not isinstance(block, SwinBlock):
            continue
        layers = [f"{name}.attention", f"{name}.feed_forward"]
        if isinstance(block.feed_forward, ConditionalFeedForward):
            branches = {branch: of(*(f"{layer}.{branch}" for layer in layers)) for branch in ("light", "heavy")}
            light += branches["light"]
            heavy += branches["heavy"]
            router += of(*layers) - sum(branches.values())
        else:
            light += of(*layers)
    for name, wide in network.named_modules():
        if isinstance(wide, WidePixels):
            heavy += of(f"{name}.stem", f"{name}.head")
            router += of(f"{name}.router")
    return Flops(light, heavy, router, by_module["Global"] - light - heavy - router)


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    """Peak bytes of tensors alive during `run`, above what was alive before.

    From PyTorch's own allocations, so it is exact, the same in every run and free of other networks' leftovers; what
    libraries take besides (the matrix products' workspace) is not in it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results = profiler.profiler.kineto_results if profiler.profiler else None
    events: list[Any] = [event for event in results.events() if event.name() == "[memory]"] if results else []
    alive = peak = 0
    for event in sorted(events, key=lambda event: int(event.start_ns())):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def measure(networks: Mapping[str, nn.Module], image: Tensor, *, rounds: int) -> dict[str, Cost]:
    """Measures networks in turns, so that what else the machine does meets all of them alike.

    Args:
        networks: By name, on the image's device.
        image: (B, C, H, W).
        rounds: Measurements per network, of which the medians are given; one more comes before and is not counted.

    Returns:
        Costs by name.
    """
    latency: dict[str, list[float]] = {name: [] for name in networks}
    step: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds + 1):
        for name, network in networks.items():
            optimizer = torch.optim.AdamW(network.parameters())
            latency[name].append(_seconds(partial(_infer, network, image), image.device))
            step[name].append(_seconds(partial(_train, network, image, optimizer), image.device))
            network.zero_grad(set_to_none=True)
    costs = {}
    for name, network in networks.items():
        seconds = statistics.median(step[name][1:])
        # Compiled networks share their weights with the one that they were made from, which is counted.
        original: nn.Module = getattr(network, "_orig_mod", network)
        inference_memory = peak_memory(partial(_infer, network, image), image.device)
        training_memory = peak_memory(partial(_train, network, image, None), image.device)
        network.zero_grad(set_to_none=True)
        costs[name] = Cost(
            parameters=parameter_count(original),
            flops=count_flops(original, image),
            latency=statistics.median(latency[name][1:]),
            step=seconds,
            images_per_second=len(image) / seconds,
            inference_memory=inference_memory,
            training_memory=training_memory,
        )
    return costs


def latencies(runs: Mapping[str, tuple[nn.Module, Tensor]], *, rounds: int) -> dict[str, float]:
    """Median seconds of inference of networks, each on an input of its own, measured in turns.

    Args:
        runs: Network and input by name, on one device.
        rounds: Measurements per network, of which the medians are given; one more comes before and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, (network, image) in runs.items():
            seconds[name].append(_seconds(partial(_infer, network, image), image.device))
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """So many threads for a while; None leaves them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    # A single thread's own time leaves out what other processes take.
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def _infer(network: nn.Module, image: Tensor) -> None:
    with torch.inference_mode():
        network.eval()(image)


def _train(network: nn.Module, image: Tensor, optimizer: torch.optim.Optimizer | None) -> None:
    network.train()(image).square().mean().backward()
    if optimizer is not None:
        optimizer.step()
