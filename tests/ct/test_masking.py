"""Masked image modelling: what is hidden, what is compared, and that labels are not read."""

from pathlib import Path

import h5py
import lightning.pytorch as pl
import pytest
import torch

from condswin.ct.config import PrepareCtConfig
from condswin.ct.dataset import SliceDataset
from condswin.ct.learning import SegmentationLearning
from condswin.ct.masking import MaskedSliceDataset, hide
from condswin.ct.prepare import prepare_case
from condswin.networks.models import create_model
from condswin.training import fit

from .fakes import AFFINES, config, write_pair

WINDOWS = PrepareCtConfig().windows
SMALL = {"preset": "demo", "embedding": 16, "heads": [2, 2], "stem_channels": 8}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    for number in range(3):
        volume, segmentation = write_pair(tmp_path / "in", number, (32, 32, 6), AFFINES["lits"])
        folder = tmp_path / "prepared" / ("val" if number == 2 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        prepare_case(f"volume-{number}", volume, segmentation, folder, PrepareCtConfig())
    return tmp_path / "prepared"


def masked(
    prepared: Path, *, training: bool, neighbours: int = 0, position: bool = False, cache_bytes: int = 1 << 30
) -> MaskedSliceDataset:
    return MaskedSliceDataset(
        sorted((prepared / "train").glob("*.h5")), windows=WINDOWS, neighbours=neighbours, position=position, patch=8,
        share=0.6, training=training, crop=None, augmented=False, cache_bytes=cache_bytes,
    )  # fmt: skip


@pytest.mark.parametrize("neighbours", [0, 1])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_hidden_patches_show_nothing_and_the_rest_is_the_slice(
    prepared: Path, neighbours: int, cache_bytes: int
) -> None:
    data = masked(prepared, training=False, neighbours=neighbours, cache_bytes=cache_bytes)
    whole = SliceDataset(data.files, windows=WINDOWS, neighbours=neighbours)
    for index in (0, 4, 7):
        item = data[index]
        assert "label" not in item
        assert torch.equal(item["target"], whole[index]["image"])
        hidden = item["hidden"].expand_as(item["image"])
        assert (item["image"][hidden] == 0).all()
        assert torch.equal(item["image"][~hidden], item["target"][~hidden])
        blocks = item["hidden"][0].view(4, 8, 4, 8).float().mean((1, 3))
        assert set(blocks.flatten().tolist()) == {0.0, 1.0}
        assert blocks.sum() == round(0.6 * 16)


def test_where_a_pixel_is_stays_visible_and_is_not_painted(prepared: Path) -> None:
    without = masked(prepared, training=False)[4]
    item = masked(prepared, training=False, position=True)[4]
    whole = SliceDataset(sorted((prepared / "train").glob("*.h5")), windows=WINDOWS, position=True)[4]
    assert torch.equal(item["target"], without["target"])
    assert torch.equal(item["image"][:2], without["image"])
    assert torch.equal(item["image"][2:], whole["image"][2:])
    assert item["hidden"].any()
    learning = SegmentationLearning(config(prepare={"position": True})).pretraining().learning
    assert learning.channels("swin") == (4, 2)


@pytest.mark.parametrize(("size", "patches"), [((32, 32), 16), ((20, 33), 15), ((5, 7), 1)])
def test_patches_at_edges_may_be_cut(size: tuple[int, int], patches: int) -> None:
    hidden = hide(size, 8, 0.5)
    assert hidden.shape == size
    assert 0 < hidden.sum() <= max(round(0.5 * patches), 1) * 64


def test_patches_are_drawn_afresh_in_training_and_stay_in_validation(prepared: Path) -> None:
    for training in (True, False):
        data = masked(prepared, training=training)
        torch.manual_seed(1)
        drawn = {tuple(data[3]["hidden"].flatten().tolist()) for _ in range(5)}
        assert len(drawn) == (5 if training else 1)
        torch.manual_seed(1)
        assert drawn == {tuple(data[3]["hidden"].flatten().tolist()) for _ in range(5)}
    data = masked(prepared, training=False)
    assert not torch.equal(data[3]["hidden"], data[4]["hidden"])
    assert data.telling(5) == [3, 9]


def test_only_what_was_hidden_counts(prepared: Path) -> None:
    learning = SegmentationLearning(config()).pretraining().learning
    data = masked(prepared, training=False)
    batch = torch.utils.data.default_collate([data[0], data[5]])
    output = batch["target"] + 0.5 * batch["hidden"] + 9.0 * ~batch["hidden"]
    assert float(learning.loss(output, batch)) == pytest.approx(0.5, rel=1e-5)
    output[1] = batch["target"][1] + 0.25
    assert learning.validation_scores(output, batch)["hidden_error"].tolist() == pytest.approx([0.5, 0.25], rel=1e-5)
    assert float(learning.loss(output, batch)) == pytest.approx(0.375, rel=1e-5)


def trained(prepared: Path, checkpoints: Path) -> list[torch.Tensor]:
    chosen = config(train={"epochs": 1, "batch_size": 4, "foreground": 0.5, "tumour": 0.2}, pretrain={"patch": 8})
    learning, train, monitor, parameters = SegmentationLearning(chosen).pretraining()
    assert parameters == {"patch": 8, "share": 0.6}
    pl.seed_everything(2, workers=True, verbose=False)
    network = create_model("swin", in_channels=2, out_channels=2, **SMALL)
    fitted = fit(learning, network, train, monitor=monitor, validated=True, name="swin", prepared=prepared,
                 checkpoints=checkpoints, seed=2, label="t")  # fmt: skip
    (row,) = fitted.history
    return [torch.tensor([row["train/loss"], row["val/hidden_error"]]), *(p.detach() for p in network.parameters())]


def test_labels_are_never_read(prepared: Path, tmp_path: Path) -> None:
    first = trained(prepared, tmp_path / "first")
    for path in prepared.glob("*/*.h5"):
        with h5py.File(path, "r+") as file:
            for name in ("label", "liver_slices", "tumour_slices"):
                del file[name]
    second = trained(prepared, tmp_path / "second")
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_epochs_are_the_training_s_unless_it_has_its_own() -> None:
    for own, expected in ((None, 7), (3, 3)):
        chosen = config(train={"epochs": 7}, pretrain={"epochs": own})
        pretraining = SegmentationLearning(chosen).pretraining()
        assert pretraining.train.epochs == expected
        assert pretraining.monitor == ("hidden_error", False)
        assert pretraining.learning.channels("swin") == (2, 2)
