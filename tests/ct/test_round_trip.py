"""A perfect network's prediction, through prepare, predict and evaluate, is the reference again."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from condswin.ct.config import DemoCtConfig
from condswin.ct.demo.scans import write_demo_case
from condswin.ct.nifti import read_labels
from condswin.ct.pairs import read_pair
from condswin.ct.prepared import open_prepared
from tests.whole import Whole

from .fakes import AFFINES, SHARED, affine, config, write, write_pair

NOTHING = {"largest_component": False, "fill_holes": False, "minimum_lesion": 0.0}


class Oracle(nn.Module):
    """Knows the prepared labels, and gives them for whichever slices come next, as certain logits."""

    def __init__(self, labels):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.labels = torch.from_numpy(labels.astype(np.int64))

    def forward(self, images):
        now, self.labels = self.labels[: len(images)], self.labels[len(images) :]
        assert images.shape[-2:] == now.shape[-2:]
        return F.one_hot(now, 3).movedim(-1, 1) * 30.0


def round_trip(folder, volume, segmentation, spacing):
    """Scores of the oracle on one pair, and the prediction's path."""
    task = Whole("segmentation", config(prepare={"spacing": spacing}, predict=NOTHING))
    task.prepare_case("volume-0", {"volume": volume, "segmentation": segmentation}, "test", folder)
    with open_prepared(folder / "volume-0.h5") as file:
        oracle = Oracle(file["label"][:])
    out = folder / "predictions" / task.prediction_name("volume-0")
    task.predict(oracle, folder / "volume-0.h5", out)
    (row,) = task.score(folder, out.parent)
    image, predicted = nib.load(volume), nib.load(out)
    assert predicted.shape == image.shape
    np.testing.assert_allclose(predicted.affine, image.affine, atol=1e-4)
    assert predicted.get_data_dtype() == np.uint8
    return row, out


def good(row):
    return row["liver_dice"] >= 0.98 and (np.isnan(row["tumour_dice"]) or row["tumour_dice"] >= 0.90)


@pytest.mark.parametrize("spacing", [None, 1.5, 2.2])
@pytest.mark.parametrize("case", [2, 3, 4, 7, 9])  # 2 and 4 are tilted, 2 has no tumour, 9 one of seven voxels
def test_demo(tmp_path, case, spacing):
    pair = write_demo_case(tmp_path / "raw", case, seed=10, config=DemoCtConfig())
    assert read_pair(*pair)[0].geometry.oblique == (case in (2, 4))
    row, _ = round_trip(tmp_path, *pair, spacing)
    assert good(row)
    assert spacing or row["liver_dice"] == 1
    assert np.isnan(row["lesion_recall"]) or row["lesion_recall"] == 1


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(("number", "spacing"), [(0, 1.5), (100, None), (100, 1.5)])
def test_real_scans(tmp_path, number, spacing):
    row, _ = round_trip(tmp_path, SHARED / f"volume-{number}.nii.gz", SHARED / f"segmentation-{number}.nii.gz", spacing)
    assert good(row)
    assert spacing or row["liver_dice"] == row["tumour_dice"] == 1


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("spacing", [None, 0.8, 1.3])
@pytest.mark.parametrize(
    "matrix",
    [
        affine((0.98, 0.98, 2.0), tilt=14.0, flips=(1, -1, 1)),
        affine((0.6, 1.2, 7.5), flips=(-1, -1, -1)),
        affine((0.98, 2.0, 0.98), order=(2, 1, 0), flips=(1, -1, -1), tilt=-8.0),
    ],
    ids=["oblique", "anisotropic", "sagittal and oblique"],
)
def test_real_anatomy_on_other_grids(tmp_path, matrix, spacing):
    """The real voxels as another scanner would have laid them; cut to the liver's surroundings for speed."""
    pair = []
    for role in ("volume", "segmentation"):
        array = np.asarray(nib.load(SHARED / f"{role}-100.nii.gz").dataobj)[130:400, 90:340]
        pair.append(write(tmp_path / "raw" / f"{role}-0.nii", array, matrix))
    assert read_labels(pair[1]).data.any()
    row, _ = round_trip(tmp_path, *pair, spacing)
    assert good(row)


@pytest.mark.parametrize("spacing", [None, 0.7])
def test_every_orientation_of_one_volume_is_one_canonical_volume(tmp_path, spacing):
    pair = [nib.load(path) for path in write_pair(tmp_path, "base", (24, 20, 7), AFFINES["oblique"])]
    expected = None
    every = list(product(permutations(range(3)), product((1, -1), repeat=3)))
    for number, (order, flips) in enumerate(every if spacing is None else every[::5]):
        turned = np.column_stack([order, flips])
        paths = []
        for role, image in zip(("volume", "segmentation"), pair, strict=True):
            reoriented = image.as_reoriented(turned)
            paths.append(write(tmp_path / str(number) / f"{role}-0.nii", reoriented.dataobj, reoriented.affine))
        row, out = round_trip(tmp_path / str(number), *paths, spacing)
        with open_prepared(tmp_path / str(number) / "volume-0.h5") as file:
            prepared = file["image"][:], file["label"][:]
        expected = expected or prepared
        assert all(np.array_equal(one, two) for one, two in zip(prepared, expected, strict=True))
        assert good(row)
        back = nib.load(out).as_reoriented(nib.io_orientation(np.linalg.inv(pair[0].affine) @ nib.load(out).affine))
        assert np.mean(np.asarray(back.dataobj) != np.asarray(pair[1].dataobj)) < (0.01 if spacing else 1e-9)
