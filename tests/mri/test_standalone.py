"""Scoring anybody's folders: no model, no parameters, no training framework."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from scipy.stats import bootstrap
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from condswin.mri.config import UndersampleConfig
from condswin.mri.undersample import prepare_undersampled
from condswin.outputs import RECORD
from condswin.steps.score import score_folders

from .conftest import REPOSITORY, centred_image, make_config

FOREIGN = (
    "lightning",
    "pytorch_lightning",
    "mlflow",
    "kfp",
    "condswin.training",
    "condswin.networks.models",
    "condswin.networks.unrolled",
    "condswin.registry",
)


@pytest.fixture
def folders(write_volume, tmp_path):
    """Targets with masked k-space but no stored zero-filled image, of two acquisitions, and noisy predictions."""
    draw = np.random.default_rng(2)
    for number in range(6):
        kind = "CORPD_FBK" if number % 2 else "CORPDFS_FBK"
        source = write_volume(f"file{number}.h5", seed=number, attributes={"acquisition": kind})
        target = tmp_path / "targets" / source.name
        prepare_undersampled(source, target, UndersampleConfig(center_fractions=[0.16]))
        with h5py.File(target, "a") as file:
            del file["zero_filled"]
            truth = file["reconstruction_esc"][()]
        (tmp_path / "predictions").mkdir(exist_ok=True)
        with h5py.File(tmp_path / "predictions" / source.name, "w") as file:
            file["reconstruction"] = truth + 0.01 * truth.max() * draw.standard_normal(truth.shape)
    return tmp_path / "targets", tmp_path / "predictions"


def reference(target, image):
    """Per volume, by scikit-image."""
    target, image = target.astype(np.float64), image.astype(np.float64)
    maximum = target.max()
    similarity = [structural_similarity(x, y, data_range=maximum) for x, y in zip(target, image, strict=True)]
    return {
        "psnr": peak_signal_noise_ratio(target, image, data_range=maximum),
        "ssim": np.mean(similarity),
        "nmse": ((target - image) ** 2).sum() / (target**2).sum(),
        "mae": np.abs(target - image).mean(),
    }


def test_command_loads_no_training_framework(folders, tmp_path):
    targets, predictions = folders
    code = (
        "import sys, json\nfrom condswin.cli import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit as end: assert not end.code, end.code\n"
        f"print(json.dumps([name for name in {FOREIGN!r} if name in sys.modules]))"
    )
    arguments = ["evaluate", "reconstruction", "--targets", targets, "--predictions", predictions, "--out", "scores"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *table, loaded = done.stdout.splitlines()
    assert json.loads(loaded) == []
    text = "\n".join(table)
    for word in ("psnr", "zero-filled", "95 % interval", "all (6)", "CORPD_FBK (3)", "CORPDFS_FBK (3)"):
        assert word in text
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == [
        RECORD,
        "cases.csv",
        "metrics.json",
        "pictures",
    ]


def test_every_figure_is_the_reference_s(folders):
    targets, predictions = folders
    result = score_folders(make_config(), "reconstruction", targets=targets, predictions=predictions, out=None)
    kinds, ours, zeros = [], [], []
    for path in sorted(targets.iterdir()):
        with h5py.File(path) as file, h5py.File(predictions / path.name) as predicted:
            truth = file["reconstruction_esc"][()]
            ours.append(reference(truth, predicted["reconstruction"][()]))
            zeros.append(reference(truth, centred_image(file["kspace"][()] * file["mask"][()], (20, 22))))
            kinds.append(file.attrs["acquisition"])
    parts = {None: range(6), **{kind: [i for i in range(6) if kinds[i] == kind] for kind in set(kinds)}}
    for kind, members in parts.items():
        part = result if kind is None else result["acquisitions"][kind]
        for metric in ("psnr", "ssim", "nmse", "mae"):
            for summary, rows in ((part[metric], ours), (part["zero-filled"][metric], zeros)):
                values = np.array([rows[i][metric] for i in members])
                assert summary["cases"] == len(values)
                assert summary["mean"] == pytest.approx(values.mean(), rel=1e-5, abs=1e-6)
                assert summary["std"] == pytest.approx(values.std(ddof=1), rel=1e-3, abs=1e-6)
    values = np.array([row["psnr"] for row in ours])
    interval = bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=1).confidence_interval
    width = interval.high - interval.low
    assert result["psnr"]["low"] == pytest.approx(interval.low, abs=0.08 * width)
    assert result["psnr"]["high"] == pytest.approx(interval.high, abs=0.08 * width)


def test_no_slice_wise_figure_bears_the_name_of_a_volume_s(folders):
    """The metric columns are of volumes; whatever is slice-wise is not among them."""
    targets, predictions = folders
    result = score_folders(make_config(), "reconstruction", targets=targets, predictions=predictions, out=None)
    by_slice = []
    for path in sorted(targets.iterdir()):
        with h5py.File(path) as file, h5py.File(predictions / path.name) as predicted:
            pairs = zip(file["reconstruction_esc"][()], predicted["reconstruction"][()], strict=True)
            by_slice += [reference(x[None], y[None])["psnr"] for x, y in pairs]
    assert abs(result["psnr"]["mean"] - np.mean(by_slice)) > 0.1
