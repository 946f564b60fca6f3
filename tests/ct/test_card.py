"""Statistics of CT volumes against what was put into them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from condswin.ct.card import SegmentationCard, volume_statistics
from condswin.ct.nifti import Volume
from condswin.ct.pairs import read_pair

from . import fakes

SHAPE = (60, 50, 8)


def volume(hu: Any, labels: Any, matrix: Any) -> tuple[Volume, Volume]:
    geometry = fakes.geometry(hu.shape, matrix)
    return Volume(hu.astype(np.float32), geometry), Volume(labels.astype(np.uint8), geometry)


def scan(spacing: tuple[float, float, float] = (2.0, 2.0, 5.0), noise: float = 8.0) -> tuple[Any, Any, Any]:
    """A box of fat (-100 HU) around a box of soft tissue (60) with air in it, in air; liver with two tumours."""
    hu, labels = np.full(SHAPE, -1000.0), np.zeros(SHAPE, np.uint8)
    hu[10:50, 10:40], hu[15:45, 14:36] = -100, 60
    hu[40:44, 20:30] = -990  # bowel gas, which is inside
    labels[18:30, 16:30, 2:6] = 1
    labels[20:22, 18:20, 3], labels[26:28, 26:28, 3:5] = 2, 2
    body = hu > -300
    hu[body] += np.random.default_rng(3).normal(0, noise, int(body.sum()))
    return hu, labels, fakes.affine(spacing)


def test_what_was_put_in_is_found() -> None:
    found = volume_statistics(*volume(*scan()))
    assert set(found) == set(SegmentationCard.statistics)
    assert (found["pixel"], found["slice"], found["slices"]) == (2.0, 5.0, 8.0)
    assert (found["width"], found["height"]) == (120.0, 40.0)
    assert found["body"] == pytest.approx(40 * 30 / (60 * 50))
    assert found["edge"] == 0
    assert found["hu_median"] == pytest.approx(60, abs=20)
    assert found["hu_low"] == pytest.approx(-100, abs=15)
    assert found["noise"] == pytest.approx(8, rel=0.1)
    assert found["liver_hu"] == pytest.approx(60, abs=2)
    assert found["liver_ml"] == pytest.approx(12 * 14 * 4 * 0.02)
    assert found["tumour_ml"] == pytest.approx((4 + 8) * 0.02)
    assert found["tumours"] == 2


def test_a_scan_is_the_same_however_its_file_orders_it() -> None:
    straight = volume(*scan((0.8, 1.1, 5.0)))
    matrix = fakes.affine((5.0, 0.8, 1.1), order=(2, 0, 1), flips=(-1, -1, 1))
    other = fakes.geometry((SHAPE[2], SHAPE[0], SHAPE[1]), matrix)
    turned = [Volume(fakes.from_canonical(other, each.canonical), other) for each in straight]
    assert other.orientation != straight[0].geometry.orientation
    assert volume_statistics(*turned) == pytest.approx(volume_statistics(*straight))


def test_padding_and_the_table_are_no_body() -> None:
    hu, labels, matrix = scan()
    before = volume_statistics(*volume(hu, labels, matrix))
    hu[:3], hu[54:56, 5:45] = -3024, 70
    after = volume_statistics(*volume(hu, labels, matrix))
    assert (before.pop("hu_lowest"), after.pop("hu_lowest")) == (pytest.approx(-1000), -3024)
    assert after == before


def test_a_body_that_is_cut_off_reaches_the_edge() -> None:
    hu, labels, matrix = scan()
    found = volume_statistics(*volume(hu[12:48], labels[12:48], matrix))
    assert found["edge"] == pytest.approx(2 * 30 / (2 * (36 + 50)))


@pytest.mark.parametrize(
    ("change", "statistic"),
    [
        (lambda hu, labels: (hu + 50, labels), "hu_median"),
        (lambda hu, labels: (hu.clip(-160, 80), labels), "hu_low"),
        (lambda hu, labels: (hu, labels.clip(0, 1)), "tumour_ml"),
        (lambda hu, labels: (hu, np.where(labels == 2, 1, labels)), "tumours"),
    ],
)
def test_what_changes_is_what_was_changed(change: Any, statistic: str) -> None:
    hu, labels, matrix = scan()
    before = volume_statistics(*volume(hu, labels, matrix))
    after = volume_statistics(*volume(*change(hu, labels), matrix))
    assert after[statistic] != pytest.approx(before[statistic], abs=0.2)
    same = {"pixel", "slice", "slices", "width", "height", "liver_ml"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


def test_real_scans_have_the_values_of_real_scans(real_data: Path) -> None:
    found = volume_statistics(
        *read_pair(real_data / "ct" / "volume-100.nii.gz", real_data / "ct" / "segmentation-100.nii.gz")
    )
    assert 40 < found["liver_hu"] < 150
    assert -120 < found["hu_median"] < 80
    assert 5 < found["noise"] < 40
    assert found["tumours"] == 4
