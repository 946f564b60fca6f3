"""Pictures of trainings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condswin.config.root import Config
from condswin.ct.pictures import SegmentationPictures
from condswin.mri.pictures import ReconstructionPictures
from condswin.networks.models import create_model
from condswin.networks.watching import Decision, watched
from condswin.reporting.training import _COLOUR, curves, drawing, router_maps
from condswin.tasks.slices import Shown
from condswin.training.shown import Epoch


def pixels(figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


@pytest.mark.parametrize(("size", "patch"), [((96, 96), 4), ((100, 60), 4), ((50, 70), 2)])
def test_maps_lie_over_the_image(size: tuple[int, int], patch: int) -> None:
    """A patch is coloured where its pixels are, at every stage, each of which halves the map, rounded up."""
    decisions = []
    for stage in range(3):
        shape = [-(-side // (patch * 2**stage)) for side in size]
        chosen = torch.zeros(1, *shape, dtype=torch.bool)
        chosen[0, 1, 2] = True
        decisions.append(Decision(f"encoder.{stage}.0", "feed_forward", chosen.float(), chosen, 1.0))
    drawn = pixels(router_maps("a.h5, slice 3", np.zeros(size, np.float32), decisions))
    scale = 192 / max(size)
    wide = round(size[1] * scale) + 6
    for stage in range(3):
        tile = drawn[: round(size[0] * scale), stage * wide : (stage + 1) * wide - 6]
        rows, columns = np.nonzero((tile > 0).any(-1))
        side = patch * 2**stage
        assert rows.min() / scale == pytest.approx(side, abs=1)
        assert (rows.max() + 1) / scale == pytest.approx(min(2 * side, size[0]), abs=1)
        assert columns.min() / scale == pytest.approx(2 * side, abs=1)
        assert tile.max(axis=(0, 1)) == pytest.approx(0.75 * np.array(_COLOUR))


def test_each_cascade_has_its_rows_also_where_weights_are_shared() -> None:
    chosen = torch.ones(1, 4, 4, dtype=torch.bool)

    def decisions(*blocks: str) -> list[Decision]:
        return [Decision(block, "key_value", chosen.float(), chosen, 1.0) for block in blocks]

    shared = decisions(*["regularisers.0.bottleneck.0", "regularisers.0.bottleneck.1"] * 3)
    own = decisions(*(f"regularisers.{cascade}.bottleneck.{block}" for cascade in range(3) for block in range(2)))
    for each in (shared, own):
        (axes,) = router_maps("a", np.zeros((16, 16), np.float32), each).axes
        assert [text.get_text() for text in axes.get_xticklabels()] == ["bottleneck"]
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert labels == [f"cascade {cascade}\nkeys attended to" for cascade in (1, 2, 3)]


def test_curves_show_what_there_is() -> None:
    rows = [{"epoch": epoch, "train/loss": 1.0, "train/learning_rate": 1e-3} for epoch in range(2)]
    assert [axes.get_title() for axes in curves(rows, None).axes if axes.axison] == [
        "loss", "learning rate at the end of the epoch"
    ]  # fmt: skip
    more = {"val/loss": 1.0, "val/a": float("nan"), "val/b": 2.0, "router/encoder.0.1/query/entropy": 0.5}
    figure = curves([{**row, **more, "train/gradient_norm": 1.0, "system/cpu_percent": 5.0} for row in rows], "val/b")
    titles = {axes.get_title(): axes for axes in figure.axes if axes.axison}
    assert list(titles)[-1] == "entropy of routers"
    assert [line.get_label() for line in titles["validation score"].lines] == ["val/b", "val/a"]
    assert [line.get_label() for line in titles["entropy of routers"].lines] == ["query"]


@pytest.mark.parametrize(
    ("task", "name", "channels"),
    [
        ("reconstruction", "conditional-light", (1, 1)),
        ("reconstruction", "unrolled-conditional-light", (3, 2)),
        ("segmentation", "conditional-iterative", (3, 3)),
    ],
)
def test_every_task_draws_what_its_networks_see(
    task: str, name: str, channels: tuple[int, int], tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = create_model(
        name, preset="demo", embedding=16, heads=[2, 2], in_channels=channels[0], out_channels=channels[1]
    ).eval()
    image = torch.randn(1, channels[0], 40, 44)
    one = torch.ones(1)
    batch = {"image": image, "target": torch.randn(1, 1, 40, 32 if channels[0] == 3 else 44)}
    batch |= {"mean": 0 * one, "std": one, "maximum": 4 * one, "label": torch.randint(3, (1, 40, 44))}
    with torch.no_grad(), watched(network) as decisions:
        output = network(image)
    rows = [{"epoch": 0.0, "train/loss": 1.0}]
    shown = Shown("/data/a$b.h5, slice 1", batch, output)
    drawing(tiny, task)(Epoch(rows, None, [shown], [decisions]), tmp_path)
    assert not capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        "epoch-0000-routers-1.png", "epoch-0000.png", "training.png"
    ]  # fmt: skip
    assert np.asarray(Image.open(tmp_path / "pictures/epoch-0000.png")).std() > 10


def test_reconstructions_are_shown_in_the_target_s_units(tiny: Config) -> None:
    """The network's output is undone as the target is: one that equals the target has no error."""
    one, target = torch.ones(1), torch.rand(1, 1, 24, 24)
    batch = {"image": target.clone(), "target": target, "mean": 5 * one, "std": 3 * one, "maximum": 8 * one}
    figure = ReconstructionPictures(tiny).slices([Shown("a.h5, slice 0", batch, target.clone())])
    zero_filled, true, output, error = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    np.testing.assert_allclose(true, 3 * target[0, 0] + 5, rtol=1e-6)
    assert np.array_equal(output, true)
    assert np.array_equal(zero_filled, true)
    assert not error.any()


def test_segmentations_are_shown_where_the_liver_is(tiny: Config) -> None:
    label = torch.zeros(1, 40, 50, dtype=torch.int64)
    label[0, 10:20, 30:44] = 1
    output = torch.nn.functional.one_hot(label, 3).permute(0, 3, 1, 2).float()
    shown = Shown("volume-1.h5, slice 2", {"image": torch.zeros(1, 3, 40, 50), "label": label}, output)
    figure = SegmentationPictures(tiny).slices([shown])
    whole, liver, _, errors = figure.axes
    assert whole.get_xlim() == errors.get_xlim() == (-0.5, 49.5)
    assert 25 < liver.get_xlim()[0] < 30 < 44 < liver.get_xlim()[1] < 49
    assert len(liver.collections) == 2
    assert not np.asarray(errors.images[1].get_array())[..., 3].any()
