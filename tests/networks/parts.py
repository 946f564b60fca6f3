"""Where the time goes that conditional networks take and plain ones do not: inference by part of a block.

python -m tests.networks.parts [--rounds 21] [demo:96 base:320 ...]

Milliseconds of the processor, one thread, medians of networks measured in turns. `between` is what of a block is in
none of the parts: norms, windows and sums, and gathering patches and putting them back.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from condswin.networks.attention import RoutedWindowAttention, WindowAttention
from condswin.networks.blocks import FeedForward, SwinBlock
from condswin.networks.costs import limited_threads
from condswin.networks.models import create_model
from condswin.networks.routers import Router

VARIANTS = ("swin", "conditional-light", "conditional-iterative")
PARTS = ("light attention", "heavy attention", "light feed-forward", "heavy feed-forward", "routers", "between", "rest")
#: Presets, and the sides of the images that they are for.
SIZES = ("demo:96", "base:320", "thesis-1:256", "thesis-2:256")


def parts_of(network: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name of the part, module and method; blocks, which the others are inside of, come as `block`."""
    for name, module in network.named_modules():
        heavy = ".heavy" in name
        match module:
            case SwinBlock():
                yield "block", module, "forward"
            case RoutedWindowAttention():
                yield "heavy attention", module, "forward"
            case WindowAttention():
                yield "light attention", module, "forward"
            case FeedForward():
                yield f"{'heavy' if heavy else 'light'} feed-forward", module, "forward"
            case Router():
                yield "routers", module, "forward"
                yield "routers", module, "weigh"


def measure(networks: Mapping[str, nn.Module], image: Tensor, *, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds by network and part, and of all (`whole`)."""
    spent: defaultdict[str, float] = defaultdict(float)

    def timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def run(*given: Any, **options: Any) -> Any:
            start = time.process_time()
            result = method(*given, **options)
            spent[part] += time.process_time() - start
            return result

        return run

    for network in networks.values():
        for part, module, method in parts_of(network.eval()):
            setattr(module, method, timed(part, getattr(module, method)))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, network in networks.items():
                spent.clear()
                timed("whole", network)(image)
                block, whole = spent.pop("block"), spent["whole"]
                inside = sum(spent.values()) - whole
                found[name].append({**spent, "between": block - inside, "rest": whole - block})
    return {
        name: {part: 1e3 * statistics.median(one.get(part, 0.0) for one in runs[1:]) for part in ("whole", *PARTS)}
        for name, runs in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=SIZES, metavar="PRESET:PIXELS")
    parser.add_argument("--rounds", type=int, default=21)
    chosen = parser.parse_args()
    print("| preset, pixels | network | times swin | ms | " + " | ".join(PARTS) + " |")
    print("|---|---" + "|---:" * (len(PARTS) + 2) + "|")
    for preset, pixels in (size.split(":") for size in chosen.sizes):
        networks = {name: create_model(name, preset=preset) for name in VARIANTS}
        with limited_threads(1):
            costs = measure(networks, torch.randn(1, 1, int(pixels), int(pixels)), rounds=chosen.rounds)
        for name, cost in costs.items():
            cells = [f"{cost[part]:.1f}" for part in ("whole", *PARTS)]
            share = cost["whole"] / costs["swin"]["whole"]
            print("| " + " | ".join([f"`{preset}`, {pixels}", f"`{name}`", f"{share:.2f}", *cells]) + " |")


if __name__ == "__main__":
    main()
