import pytest
import torch
from torch import nn

from condswin.errors import ConfigError
from condswin.networks.models import create_model
from condswin.networks.transfer import transfer

SMALL = {"preset": "demo", "embedding": 16, "heads": [2, 2], "stem_channels": 8}


def test_weights_of_equal_names_and_shapes_are_taken_and_all_others_are_told() -> None:
    network, other = create_model("swin", out_channels=3, **SMALL), create_model("swin", out_channels=2, **SMALL)
    weights = {**other.state_dict(), "gone.weight": torch.zeros(2)}
    del weights["bottleneck.0.norms.0.weight" if "bottleneck.0.norms.0.weight" in weights else next(iter(weights))]
    absent = next(iter(set(network.state_dict()) - set(weights)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = transfer(network, weights, "there")
    after = network.state_dict()
    assert found.left_over == ("gone.weight",)
    assert found.missing == (absent,)
    assert found.reshaped
    for told in found.reshaped:
        name, _, shapes = told.partition(" ")
        assert shapes == f"{tuple(after[name].shape)} for {tuple(weights[name].shape)}"
    kept = {told.partition(" ")[0] for told in found.reshaped} | {absent}
    assert {*found.matched, *kept} == set(after)
    for name, value in after.items():
        assert torch.equal(value, before[name] if name in kept else weights[name])
    assert found.numbers == sum(weights[name].numel() for name in found.matched)
    assert found.of == sum(value.numel() for value in after.values())
    assert found.record() == {
        **{"matched": len(found.matched), "missing": 1, "left_over": 1, "reshaped": len(found.reshaped)},
        **{"numbers": found.numbers, "of": found.of},
    }
    lines = found.lines()
    assert lines[0] == f"{len(found.matched)} weights matched ({found.numbers} of {found.of} numbers)"
    assert lines[1] == f"1 missing there, fresh here: {absent}"
    assert lines[2] == "1 left over: gone.weight"
    assert lines[3].startswith(f"{len(found.reshaped)} of another shape, fresh here: ")


def test_a_long_list_is_cut() -> None:
    network = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    lines = transfer(network, {"0.weight": torch.ones(2, 2)}, "there").lines()
    assert lines[0] == "1 weights matched (4 of 30 numbers)"
    assert lines[1].endswith("3.bias and 3 more")
    assert lines[1].startswith("9 missing there, fresh here: 0.bias, 1.bias, 1.weight")
    assert lines[2] == "0 left over"


def test_running_statistics_are_taken_but_are_no_match_alone() -> None:
    network, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    other.running_mean = torch.full((3,), 7.0)
    assert "running_mean" in transfer(network, other.state_dict(), "there").matched
    assert network.running_mean is not None
    assert network.running_mean.tolist() == [7, 7, 7]
    with pytest.raises(ConfigError, match="none of its 1 weights"):
        transfer(network, {"running_mean": torch.ones(3)}, "there")
    assert network.running_mean.tolist() == [7, 7, 7]


def test_a_network_that_has_nothing_in_common_is_refused_in_one_line() -> None:
    network = create_model("swin", **SMALL)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        transfer(network, create_model("unet", preset="demo").state_dict(), "models/unet")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("models/unet: none of its ")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
