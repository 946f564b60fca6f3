"""Our networks beside the plain ones of `reference.py`, in the same rounds.

python -m tests.networks.bench_reference [--compile] [--profile] [--batch 2] [--rounds 7] [--threads 2]
"""

import argparse

import torch
from rich.console import Console

from condswin.networks.costs import limited_threads, measure
from condswin.networks.models import create_model
from condswin.networks.presets import list_variants
from condswin.steps.bench import ratios, table
from tests.networks.reference import PlainNetwork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", action="store_true", help="ours compiled too; takes minutes")
    parser.add_argument("--profile", action="store_true", help="also where the time of our inference goes")
    parser.add_argument(
        "--variants", nargs="+", default=["swin", "conditional-light"], choices=list_variants("variant")
    )
    parser.add_argument("--preset", default="thesis-2")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    networks, pairs = {}, {}
    for variant in chosen.variants:
        ours = create_model(variant, preset=chosen.preset, dropout=0.0)
        plain = PlainNetwork(variant, chosen.preset)
        plain.load_state_dict(ours.state_dict())
        networks |= {variant: ours, f"plain {variant}": plain}
        pairs[f"{variant} / plain"] = (variant, f"plain {variant}")
        if chosen.compile:
            networks[f"{variant}, compiled"] = torch.compile(ours)
            pairs[f"{variant}, compiled / plain"] = (f"{variant}, compiled", f"plain {variant}")
    image = torch.randn(chosen.batch, 1, chosen.size, chosen.size)
    with limited_threads(chosen.threads):
        costs = measure(networks, image, rounds=chosen.rounds)
    console = Console(width=160)
    console.print(table(costs, title=f"{chosen.preset}, {chosen.batch} x {chosen.size} x {chosen.size}"))
    console.print(ratios(costs, pairs))
    if chosen.profile:
        for variant in chosen.variants:
            network = networks[variant].eval()
            with torch.no_grad(), torch.profiler.profile() as profile:
                for _ in range(chosen.rounds):
                    network(image)
            table_of_operators = profile.key_averages().table("self_cpu_time_total", row_limit=15)
            console.print(variant, table_of_operators, sep="\n")


if __name__ == "__main__":
    main()
