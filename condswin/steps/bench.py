"""Command: what networks cost on this machine."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from torch import nn

from condswin.bench import limited_threads, measure, ratios, table
from condswin.errors import ConfigError
from condswin.networks import create_model, list_variants
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
    compiled: bool,
    out: Path | None,
) -> None:
    """Measures, prints tables and writes JSON.

    Args:
        variants: Names; None for all.
        preset: Of all of them.
        size: Image side, pixels.
        batch: Images at a time.
        device: A torch device.
        threads: CPU threads; None for PyTorch's choice.
        rounds: Measurements per network.
        compiled: Measure `torch.compile` beside eager execution.
        out: JSON file; None for none.

    Raises:
        ConfigError: No such variant, preset or device.
    """
    names = list(variants or list_variants())
    try:
        image = torch.randn(batch, 1, size, size, device=device)
        networks = {name: create_model(name, preset=preset).to(device) for name in names}
    except (ValueError, RuntimeError, AssertionError) as error:  # torch raises each of them for devices
        raise ConfigError(f"bench: {str(error).splitlines()[0]}") from None
    if compiled:
        networks |= {f"{name}, compiled": cast(nn.Module, torch.compile(networks[name])) for name in names}
    with limited_threads(threads):
        costs = measure(networks, image, rounds=rounds)
        used = torch.get_num_threads()
    console = Console()
    console.width = max(console.width, 140)
    title = f"{preset}, {batch} x {size} x {size}, {device}, {used} threads, medians of {rounds}"
    console.print(table(costs, title=title))
    if "swin" in costs:
        others = {f"{name} / swin": (name, "swin") for name in costs if name != "swin"}
        console.print(ratios(costs, others))
    if out is not None:
        settings = {"preset": preset, "batch": batch, "size": size, "device": device, "threads": used, "rounds": rounds}
        numbers = {name: asdict(cost) for name, cost in costs.items()}
        write_result(out, "bench", {**settings, "torch": torch.__version__, "costs": numbers})
