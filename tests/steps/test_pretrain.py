"""Training without labels first, and what starts from it."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from condswin.config.root import Config
from condswin.devices import described
from condswin.errors import BadFileError, ConfigError
from condswin.files import read_json, sha256
from condswin.manifest import TRAINED_ON, Manifest, generated_of_all
from condswin.networks.saving import load_model, load_weights, read_spec
from condswin.registry.tracking import connect
from condswin.registry.training_run import RUN, TrainingRun
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare
from condswin.steps.train import pretrain, train
from condswin.training.module import TrainingModule

TASK = "segmentation"


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def world(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    folder = tmp_path_factory.mktemp("pretraining")
    section = tiny.segmentation.model_copy(update={"source": str(folder / "raw")})
    tracking = tiny.tracking.model_copy(update={"uri": f"sqlite:///{folder}/mlflow.db"})
    config = tiny.model_copy(update={TASK: section, "tracking": tracking})
    demo_data(config, TASK, out=folder / "raw")
    ingest(config, TASK, source=str(folder / "raw"), out=folder / "ingested")
    prepare(config, TASK, ingested=folder / "ingested", out=folder / "prepared")
    pretrain(config, TASK, "swin", prepared=folder / "prepared", checkpoints=folder / "c", out=folder / "first")
    return config, folder


def from_initial(config: Config, initial: Path | None) -> Config:
    settings = config.segmentation.train.model_copy(update={"initial": initial and str(initial), "epochs": 1})
    return config.model_copy(update={TASK: config.segmentation.model_copy(update={"train": settings})})


def trained(config: Config, folder: Path, initial: Path | None, out: Path, prepared: Path | None = None) -> bool:
    data = prepared or folder / "prepared"
    chosen = from_initial(config, initial)
    return train(chosen, TASK, "swin", prepared=data, checkpoints=out.with_name("c"), out=out).done_before


def test_what_is_written_is_a_network_that_predicts_nothing(world: tuple[Config, Path]) -> None:
    config, folder = world
    assert sorted(path.name for path in (folder / "first").iterdir() if path.name[0] != ".") == [
        "history.csv", "model.json", "model.safetensors"
    ]  # fmt: skip
    spec = read_spec(folder / "first")
    assert (spec.in_channels, spec.out_channels) == (4, 2)
    assert spec.provenance["pretraining"] == {"patch": 16, "share": 0.6}
    assert "val/hidden_error" in (folder / "first" / "history.csv").read_text()
    with pytest.raises(
        BadFileError, match=r"trained without labels and predicts nothing.*segmentation\.train\.initial"
    ):
        load_model(folder / "first")
    with pytest.raises(ConfigError, match="no training without labels for this task"):
        pretrain(config, "reconstruction", "swin", prepared=folder, checkpoints=folder, out=folder / "x")


def test_it_goes_on_where_it_was(world: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = world
    places = {"prepared": folder / "prepared", "checkpoints": tmp_path / "c", "out": tmp_path / "again"}
    original = TrainingModule.on_train_batch_start

    def killed(self: TrainingModule, batch: object, index: int) -> None:
        if self.current_epoch == 1:
            raise KilledError
        original(self, batch, index)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "on_train_batch_start", killed)
        with pytest.raises(KilledError):
            pretrain(config, TASK, "swin", **places)

    def killed_at_the_end(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "finish", killed_at_the_end)
        with pytest.raises(KilledError):
            pretrain(config, TASK, "swin", **places)
    assert pretrain(config, TASK, "swin", **places).done_before
    (known,) = (tmp_path / "c").glob(f"*/{RUN}")
    run = connect(config).get_run(read_json(known)["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["weights_sha256"] == read_spec(tmp_path / "again").weights_sha256
    assert run.data.tags["device"] == described(config.segmentation.train.device)
    ours, theirs = load_weights(tmp_path / "again")[0], load_weights(folder / "first")[0]
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_training_starts_from_it_and_says_with_what(
    world: tuple[Config, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder = world
    capsys.readouterr()
    trained(config, folder, folder / "first", tmp_path / "model")
    said = capsys.readouterr().err
    assert f"train segmentation swin: {folder / 'first'}: " in said
    assert "weights matched (" in said
    assert "0 missing there" in said
    assert "of another shape, fresh here: " in said  # three classes from as many channels as the slice has
    spec = read_spec(tmp_path / "model")
    initial = spec.provenance["initial"]
    assert initial["weights_sha256"] == read_spec(folder / "first").weights_sha256
    assert (initial["variant"], initial["pretraining"]) == ("swin", {"patch": 16, "share": 0.6})
    assert initial["taken"]["matched"] > 20
    data = Manifest.read(folder / "prepared", TASK)
    known = {"train": data.known_by("train"), "val": data.known_by("val")}
    assert spec.provenance[TRAINED_ON] == initial[TRAINED_ON] == known
    assert len(known["train"]) == data.counts()["train"]
    assert str(folder) not in json.dumps(spec.provenance)
    load_model(tmp_path / "model")
    # Other weights than from scratch.
    trained(config, folder, None, tmp_path / "scratch")
    ours, theirs = load_weights(tmp_path / "model")[0], load_weights(tmp_path / "scratch")[0]
    assert not all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert "initial" not in read_spec(tmp_path / "scratch").provenance


def test_what_it_starts_from_is_part_of_the_key_and_where_that_lies_is_not(
    world: tuple[Config, Path], tmp_path: Path
) -> None:
    config, folder = world
    assert not trained(config, folder, folder / "first", tmp_path / "model")
    assert trained(config, folder, folder / "first", tmp_path / "model")
    shutil.copytree(folder / "first", tmp_path / "moved")
    assert trained(config, folder, tmp_path / "moved", tmp_path / "model")
    assert not trained(config, folder, None, tmp_path / "model")
    other = config.model_copy(update={"seed": 99})
    pretrain(other, TASK, "swin", prepared=folder / "prepared", checkpoints=tmp_path / "c2", out=tmp_path / "second")
    assert not trained(config, folder, tmp_path / "second", tmp_path / "model")


def test_generated_data_is_remembered_from_the_first_training(world: tuple[Config, Path], tmp_path: Path) -> None:
    config, folder = world
    shutil.copytree(folder / "prepared", tmp_path / "real")
    manifest = json.loads((tmp_path / "real" / "manifest.json").read_text())
    for case in manifest["cases"]:
        case["details"]["generated"] = False
    (tmp_path / "real" / "manifest.json").write_text(json.dumps(manifest))
    trained(config, folder, None, tmp_path / "scratch", tmp_path / "real")
    trained(config, folder, folder / "first", tmp_path / "model", tmp_path / "real")
    trained(config, folder, folder / "first", tmp_path / "demo")
    found = {name: read_spec(tmp_path / name).provenance["generated"] for name in ("scratch", "model", "demo")}
    assert found == {"scratch": "none", "model": "some", "demo": "all"}
    # And from the one before that.
    trained(config, folder, tmp_path / "model", tmp_path / "third", tmp_path / "real")
    third = read_spec(tmp_path / "third").provenance
    assert third["generated"] == "some"
    assert third["initial"]["initial"]["weights_sha256"] == read_spec(folder / "first").weights_sha256


@pytest.mark.parametrize(
    ("marks", "expected"),
    [(["all", "all"], "all"), (["none", "none"], "none"), (["none", "all"], "some"), (["some", "all"], "some"),
     (["none", "unknown"], "unknown"), (["all", "unknown"], "unknown")],
)  # fmt: skip
def test_marks_of_several_trainings_are_one(marks: list[str], expected: str) -> None:
    assert generated_of_all(marks) == expected


def test_what_has_nothing_in_common_or_is_damaged_is_refused(world: tuple[Config, Path], tmp_path: Path) -> None:
    config, folder = world
    shutil.copytree(folder / "first", tmp_path / "other")
    weights = {f"x.{name}": value for name, value in load_weights(folder / "first")[0].items()}
    safetensors.torch.save_file(weights, tmp_path / "other" / "model.safetensors")
    with pytest.raises(BadFileError, match="checksum differs"):
        trained(config, folder, tmp_path / "other", tmp_path / "model")
    with pytest.raises(BadFileError, match=r"nowhere.model\.json: no such file"):
        trained(config, folder, tmp_path / "nowhere", tmp_path / "model")
    # A refusal costs nothing that is there.
    trained(config, folder, None, tmp_path / "model")
    description = json.loads((tmp_path / "other" / "model.json").read_text())
    description["weights_sha256"] = sha256(tmp_path / "other" / "model.safetensors")
    (tmp_path / "other" / "model.json").write_text(json.dumps(description))
    with pytest.raises(ConfigError, match=r"other: none of its \d+ weights has a name and shape of this network's"):
        trained(config, folder, tmp_path / "other", tmp_path / "model")
    load_model(tmp_path / "model")
