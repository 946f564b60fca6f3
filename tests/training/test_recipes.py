"""The parts of the recipes for real data, trained together on a few small slices."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from condswin.config.profiles import compose
from condswin.config.reading import parse_config
from condswin.config.root import Config
from condswin.ct.nifti import read_labels
from condswin.mri.reading import NETWORK
from condswin.networks.saving import WEIGHTS, load_model
from condswin.networks.unrolled import UnrolledNetwork
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.predict import predict
from condswin.steps.prepare import prepare
from condswin.steps.train import train
from condswin.training.history import read_history
from condswin.training.module import TrainingModule
from tests.training.runs import KilledError

SMALL = {"embedding": 16, "heads": [2, 2], "stem_channels": 8, "cascades": 2, "variation_steps": 5}


def recipe(tiny: Config, **settings: Any) -> Config:
    """That of `fastmri`, with a network and a training of seconds."""
    wanted = compose(["fastmri"]).reconstruction
    values = tiny.values()
    values.pop("tasks")
    section = values["reconstruction"]
    variant = wanted.variants["unrolled-swin"]
    section["variants"] = {
        "unrolled-swin": {**variant.model_dump(), "preset": "demo", "overrides": {**variant.overrides, **SMALL}}
    }
    section["train"] |= {
        **{name: wanted.train.model_dump(mode="json")[name] for name in ("loss", "late_loss", "neighbours", "augment")},
        **{"epochs": 3, "batch_size": 1, "checkpoint_minutes": 1e-9, "pictures": 1, **settings},
    }
    values.pop("segmentation")
    return parse_config(values, origin="test")


def trained(config: Config, prepared: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, until: Any = None) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    folder.mkdir(exist_ok=True)
    original = TrainingModule.on_train_batch_start

    def interrupted(self: TrainingModule, batch: Any, index: int) -> None:
        if (self.current_epoch, index) == until:
            raise KilledError
        original(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "on_train_batch_start", interrupted)
        train(config, "reconstruction", "unrolled-swin", prepared=prepared, checkpoints=folder / "checkpoints",
              out=folder / "model")  # fmt: skip
    return folder / "model"


def test_an_interrupted_training_by_the_recipe_ends_where_an_unbroken_one_does(
    tiny: Config, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after the loss has turned, and predicted with."""
    config = recipe(tiny)
    whole = trained(config, prepared, tmp_path / "whole", monkeypatch)
    for moment in ((1, 1), (2, 1)):
        with pytest.raises(KilledError):
            trained(config, prepared, tmp_path / "broken", monkeypatch, moment)
    broken = trained(config, prepared, tmp_path / "broken", monkeypatch)
    assert (broken / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    history = read_history(whole / "history.csv")
    assert history == read_history(broken / "history.csv")
    assert all(0 < row["val/slice_ssim"] < 1 for row in history)
    network, spec = load_model(whole)
    assert isinstance(network, UnrolledNetwork)
    assert (network.neighbours, spec.in_channels, spec.out_channels) == (1, 7, 2)
    assert any("modulations" in name and bool(value.any()) for name, value in network.state_dict().items())
    # With parameters at hand that know nothing of neighbours; each slice with those of its volume.
    scans = sorted((prepared / "test").glob("*.h5"))
    written = predict(compose(["demo"]), scans, model=str(whole), out=tmp_path / "out", force=True)
    for scan, path in zip(scans, sorted(written), strict=True):
        with h5py.File(path) as made, h5py.File(scan) as given:
            assert made["reconstruction"].shape == given["reconstruction_esc"].shape
            assert np.isfinite(made["reconstruction"][()]).all()
            assert NETWORK in json.loads(made.attrs["held_out_errors"])


def test_without_the_late_loss_the_first_epochs_are_the_same(
    tiny: Config, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {}
    for name, late in (("late", {"after": 0.5, "l1": 0.1}), ("never", None)):
        config = recipe(tiny, late_loss=late, epochs=2)
        folder = trained(config, prepared, tmp_path / name, monkeypatch)
        rows[name] = read_history(folder / "history.csv")
    assert rows["late"][0]["train/loss"] == rows["never"][0]["train/loss"]
    assert rows["late"][0]["val/loss"] == rows["never"][0]["val/loss"]
    assert rows["late"][1]["train/loss"] != pytest.approx(rows["never"][1]["train/loss"], rel=1e-3)
    assert torch.isfinite(torch.tensor([row["train/loss"] for each in rows.values() for row in each])).all()


def test_the_recipe_of_lits_trains_and_its_folds_predict_together(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours, lesions that nobody had, answers at each scale; then mirror images of two folds."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    wanted, values = compose(["lits"]).segmentation, tiny.values()
    values = {"seed": values["seed"], "segmentation": {**values["segmentation"], "source": str(tmp_path / "raw")}}
    section, train_wanted = values["segmentation"], wanted.train.model_dump(mode="json")
    section["prepare"] = {**wanted.prepare.model_dump(mode="json"), "spacing": None}
    section["predict"] |= {"overlap": wanted.predict.overlap, "mirrored": wanted.predict.mirrored, "window": 32}
    section["train"] |= {name: train_wanted[name] for name in ("foreground", "tumour", "synthetic_lesions", "augment")}
    section["train"] |= {"epochs": 1, "crop": 48, "pictures": 0}
    overrides = {**wanted.variants["swin"].overrides, "embedding": 16, "heads": [2, 2, 4], "stem_channels": 8}
    section["variants"] = {"swin": {"network": "swin", "preset": "base", "overrides": overrides}}
    models = []
    for fold in range(2):
        section["ingest"] |= {"folds": 2, "fold": fold}
        config = parse_config(values, origin="test")
        if not fold:
            demo_data(config, "segmentation", out=tmp_path / "raw")
        ingest(config, "segmentation", source=str(tmp_path / "raw"), out=tmp_path / f"in-{fold}")
        prepare(config, "segmentation", ingested=tmp_path / f"in-{fold}", out=tmp_path / f"prepared-{fold}")
        train(config, "segmentation", "swin", prepared=tmp_path / f"prepared-{fold}", checkpoints=tmp_path / "states",
              out=tmp_path / f"fold-{fold}")  # fmt: skip
        models.append(tmp_path / f"fold-{fold}")
        network, spec = load_model(models[-1])
        assert spec.in_channels == 2 * 5
        assert spec.provenance["synthetic"] == ["synthetic lesions in 33% of the training slices with liver"]
        # In training an answer for each of two stages follows.
        assert network.train()(torch.zeros(1, 10, 48, 48)).shape == (1, 3 * 3, 48, 48)
    scan = next((tmp_path / "raw").rglob("volume-0.nii*"))
    (together,) = predict(
        config, [scan], model=str(models[0]), further=[str(models[1])], out=tmp_path / "out", force=True
    )
    assert read_labels(together).data.shape == read_labels(next(scan.parent.glob("segmentation-0.nii*"))).data.shape
