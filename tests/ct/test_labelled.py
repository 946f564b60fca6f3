"""A share of the labels: which cases are drawn, and that no other label is read."""

from itertools import pairwise
from pathlib import Path

import h5py
import pytest
import torch

from condswin.ct.config import PrepareCtConfig
from condswin.ct.learning import SegmentationLearning, labelled
from condswin.ct.prepare import prepare_case
from condswin.errors import ConfigError
from condswin.manifest import CaseRecord, Manifest

from .fakes import AFFINES, config, write_pair

NAMES = [f"volume-{number}" for number in range(40)]


def learning(share: float, seed: int = 3) -> SegmentationLearning:
    chosen = config(train={"labelled": share, "augment": False, "foreground": 0.0, "tumour": 0.0})
    return SegmentationLearning(chosen.model_copy(update={"seed": seed}))


def test_larger_shares_have_the_cases_of_smaller_ones() -> None:
    drawn = [labelled(NAMES, share, 1) for share in (0.001, 0.05, 0.1, 0.3, 1.0)]
    assert [len(names) for names in drawn] == [1, 2, 4, 12, 40]
    assert all(less < more for less, more in pairwise(drawn))
    assert labelled(reversed(NAMES), 0.1, 1) == drawn[2]
    assert labelled(NAMES, 0.1, 2) != drawn[2]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    for number in range(4):
        volume, segmentation = write_pair(tmp_path / "in", number, (32, 32, 5), AFFINES["lits"])
        for split in ("train", "val"):
            (tmp_path / "prepared" / split).mkdir(parents=True, exist_ok=True)
            prepare_case(f"volume-{number}", volume, segmentation, tmp_path / "prepared" / split, PrepareCtConfig())
    return tmp_path / "prepared"


@pytest.mark.parametrize(("share", "count"), [(0.2, 1), (0.5, 2), (1.0, 4)])
def test_an_epoch_is_as_long_as_with_all_labels_and_has_no_others(prepared: Path, share: float, count: int) -> None:
    chosen = labelled([path.stem for path in (prepared / "train").glob("*.h5")], share, 3)
    for path in (prepared / "train").glob("*.h5"):
        if path.stem not in chosen:
            path.write_bytes(b"no case of ours")
    data = learning(share).dataset(prepared, "train", "swin", training=True)
    assert len(data) == 20
    assert {path.stem for path in data.files} == chosen
    assert len(chosen) == count
    seen = torch.stack([data[index]["image"] for index in range(len(data))])
    assert len(torch.unique(seen, dim=0)) == 5 * count
    # Validation has all of its cases.
    assert len(learning(share).dataset(prepared, "val", "swin", training=False)) == 20


def test_with_all_labels_slices_are_in_order(prepared: Path) -> None:
    data = learning(1.0).dataset(prepared, "train", "swin", training=True)
    assert [path.name for path in data.files] == [f"volume-{number}.h5" for number in range(4)]


def test_training_without_labels_has_all_cases(prepared: Path) -> None:
    data = learning(0.2).pretraining().learning.dataset(prepared, "train", "swin", training=True)
    with h5py.File(prepared / "train" / "volume-3.h5") as file:
        assert len(data) == 4 * len(file["image"])


def like(number: int) -> dict[str, object]:
    return {"spacing": [1.0, 0.5, 0.5 + number], "shape": [9, 32, 32], "orientation": "RAS"}


def test_a_network_has_seen_what_it_was_trained_on() -> None:
    cases = [CaseRecord(name, "train", name, {}, like(number)) for number, name in enumerate(NAMES)]
    manifest = Manifest("segmentation", cases, {}, [])
    assert learning(0.05).seen(manifest) != learning(1.0).seen(manifest)
    (drawn,) = [case for case in cases if case.name in labelled(NAMES, 0.01, 3)]
    alone = Manifest("segmentation", [drawn], {}, [])
    assert learning(0.01).seen(manifest) == learning(1.0).seen(alone)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"segmentation\.train\.labelled"):
        learning(share)
