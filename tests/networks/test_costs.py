import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from condswin.networks.costs import count_flops, measure, peak_memory
from condswin.networks.models import create_model
from condswin.networks.presets import list_variants

CPU = torch.device("cpu")


def test_flops_are_the_ones_counted_by_hand() -> None:
    """thesis-1 at 64x64: 16x16 patches of 128 channels in 4 windows, a bottleneck of 8x8 of 256 channels in one."""
    image = torch.zeros(1, 1, 64, 64)

    def stage(n: int, c: int, attention: int, feed_forward: int) -> int:
        """Projections, products of queries, keys and values, feed-forward of one block."""
        return 2 * (n * 4 * c * c + 2 * attention + n * feed_forward)

    def light(hidden: dict[int, int]) -> int:
        return 4 * stage(256, 128, 256 * 64 * 128, 2 * 128 * hidden[128]) + 2 * stage(
            64, 256, 64 * 64 * 256, 2 * 256 * hidden[256]
        )

    def heavy(n: int, c: int, h: int, windows: int, k: int = 7) -> int:
        """Keys and values; keys brought to patches, and queries' bias; products; values; feed-forward of k patches."""
        return 2 * (windows * k * (2 * c * c + c * c + c + 64 * h * c + 64 * c) + k * 8 * c * c)

    def router(n: int, c: int) -> int:
        return 2 * 3 * n * c

    swin = count_flops(create_model("swin", preset="thesis-1"), image)
    assert (swin.light, swin.heavy, swin.router) == (light({128: 256, 256: 256}), 0, 0)
    conditional = count_flops(create_model("conditional-light", preset="thesis-1"), image)
    assert conditional.light == light({128: 128, 256: 256})
    assert conditional.heavy == 4 * heavy(256, 128, 4, 4) + 2 * heavy(64, 256, 8, 1)
    assert conditional.router == 4 * router(256, 128) + 2 * router(64, 256)
    assert conditional.rest == swin.rest


def test_totals_are_pytorchs_own() -> None:
    """Where scores are taken by plain products, FlopCounterMode needs no help but for the router's vectors."""
    image = torch.zeros(2, 1, 40, 24)
    for variant in list_variants("variant"):
        network = create_model(variant, preset="demo").eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            network(image)
        flops = count_flops(network, image)
        assert flops.total - flops.router == counter.get_total_flops(), variant


def test_peak_memory_counts_what_lives_at_once() -> None:
    def run() -> None:
        first = torch.empty(1 << 18)  # 1 MiB
        second = torch.empty(1 << 18)
        del first, second
        torch.empty(1 << 18)

    assert peak_memory(run, CPU) == 2 << 20


def test_costs_of_several_networks_stand_side_by_side() -> None:
    networks = {name: create_model(name, preset="demo") for name in ("swin", "unet")}
    costs = measure(networks, torch.zeros(2, 1, 32, 32), rounds=1)
    assert list(costs) == ["swin", "unet"]
    assert all(cost.training_memory > cost.inference_memory > 0 for cost in costs.values())
    assert all(cost.latency > 0 and cost.images_per_second == 2 / cost.step for cost in costs.values())
