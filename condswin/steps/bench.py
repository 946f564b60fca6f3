"""Command: what networks cost on this machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from condswin.devices import compiled, compiling
from condswin.errors import ConfigError
from condswin.networks.costs import Cost, limited_threads, measure
from condswin.networks.models import create_model
from condswin.networks.presets import list_variants, settings_of
from condswin.outputs import write_result


def bench(
    variants: Sequence[str] | None,
    *,
    preset: str,
    size: int,
    batch: int,
    device: str,
    threads: int | None,
    rounds: int,
    overrides: Mapping[str, Any],
    compile_too: bool,
    out: Path | None,
    show: Callable[[Table], None] = lambda table: None,
) -> dict[str, Cost]:
    """Measures, shows tables and writes JSON.

    Args:
        variants: Names; None for all.
        preset: Of all of them.
        size: Image side, pixels.
        batch: Images at a time.
        device: A torch device.
        threads: CPU threads; None for PyTorch's choice.
        rounds: Measurements per network.
        overrides: Settings of all of them that differ from the preset's.
        compile_too: Measure `torch.compile` beside eager execution.
        out: JSON file; None for none.
        show: Called with each table.

    Raises:
        ConfigError: No such variant, preset, setting or device.
        MachineError: What torch compiled is damaged.
    """
    names = list(variants or list_variants())
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"bench: --device {device}: torch finds no GPU here; take cpu, or see nvidia-smi")
    try:
        image = torch.randn(batch, 1, size, size, device=device)
        for name in names:  # channels, which `create_model` takes beside settings, are none
            settings_of(name, preset=preset, **overrides)
        networks = {name: create_model(name, preset=preset, **overrides).to(device) for name in names}
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:  # torch raises each of them for devices
        raise ConfigError(f"bench: {str(error).splitlines()[0]}") from None
    if compile_too:
        networks |= {f"{name}, compiled": compiled(networks[name]) for name in names}
    with limited_threads(threads), compiling():
        costs = measure(networks, image, rounds=rounds)
        used = torch.get_num_threads()
    changed = "".join(f", {name} {value}" for name, value in overrides.items())
    title = f"{preset}{changed}, {batch} x {size} x {size}, {device}, {used} threads, medians of {rounds}"
    show(table(costs, title=title))
    others = {f"{name} / swin": (name, "swin") for name in costs if name != "swin"}
    if "swin" in costs and others:
        show(ratios(costs, others))
    if out is not None:
        settings = {"preset": preset, "overrides": dict(overrides), "batch": batch, "size": size, "device": device}
        measured = {"threads": used, "rounds": rounds, "torch": torch.__version__}
        numbers = {name: asdict(cost) for name, cost in costs.items()}
        write_result(out, "bench", {**settings, **measured, "costs": numbers})
    return costs


def table(costs: Mapping[str, Cost], *, title: str) -> Table:
    """Costs as a table, one row per network."""
    result = Table(title=title, title_justify="left")
    result.add_column("network", no_wrap=True)
    flops = ("GFLOP", "light branch", "heavy branch", "routers", "rest")
    for column in ("parameters", *flops, "latency ms", "train img/s", "infer MiB", "train MiB"):
        result.add_column(column, justify="right")
    for name, cost in costs.items():
        counts = (cost.flops.total, cost.flops.light, cost.flops.heavy, cost.flops.router, cost.flops.rest)
        result.add_row(
            name,
            f"{cost.parameters:,}",
            *(f"{value / 1e9:.3f}" for value in counts),
            f"{cost.latency * 1e3:.1f}",
            f"{cost.images_per_second:.2f}",
            f"{cost.inference_memory / 2**20:.0f}",
            f"{cost.training_memory / 2**20:.0f}",
        )
    return result


def ratios(costs: Mapping[str, Cost], pairs: Mapping[str, tuple[str, str]]) -> Table:
    """For each pair, the first network's time and memory as multiples of the second's."""
    result = Table(title="ratios", title_justify="left")
    result.add_column("networks")
    for column in ("latency", "training step", "training memory"):
        result.add_column(column, justify="right")
    for label, (first, second) in pairs.items():
        one, other = costs[first], costs[second]
        result.add_row(
            label,
            f"{one.latency / other.latency:.2f}",
            f"{one.step / other.step:.2f}",
            f"{one.training_memory / other.training_memory:.2f}",
        )
    return result
