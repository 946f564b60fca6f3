"""Studies whose networks differ in how they are trained: with fewer labels, with training without labels first."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from condswin.config.root import Config
from condswin.config.study import load_study
from condswin.config.task import Study
from condswin.errors import ConfigError
from condswin.networks.models import create_model
from condswin.steps import ablate as step
from condswin.steps.ablate import ablate
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare

TASK = "segmentation"
SWIN = {"network": "swin", "overrides": {"embedding": 16, "heads": [2, 2], "stem_channels": 8}}


@pytest.fixture(scope="module")
def world(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    folder = tmp_path_factory.mktemp("labels")
    config = tiny.model_copy(update={TASK: tiny.segmentation.model_copy(update={"source": str(folder / "raw")})})
    demo_data(config, TASK, out=folder / "raw")
    ingest(config, TASK, source=str(folder / "raw"), out=folder / "ingested")
    prepare(config, TASK, ingested=folder / "ingested", out=folder / "prepared")
    return config, folder / "prepared"


def study(**variants: dict[str, object]) -> Study:
    return Study.model_validate({"variants": {name: {**SWIN, **row} for name, row in variants.items()}})


def test_networks_start_from_one_training_without_labels(
    world: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, prepared = world
    networks = study(
        scratch={"train": {"labelled": 0.2, "epochs": 1}},
        few={"train": {"labelled": 0.2, "epochs": 1}, "pretrained": True},
        all={"train": {"epochs": 1}, "pretrained": True},
    )
    labels: list[str] = []
    steps: list[int] = []
    begun: list[dict[str, Tensor]] = []
    ended: list[dict[str, Tensor]] = []
    original = step.fit

    def fit(*arguments: object, **others: object) -> object:
        labels.append(str(others["label"]))
        network = arguments[1]
        assert isinstance(network, nn.Module)
        begun.append({name: value.clone() for name, value in network.state_dict().items()})
        fitted = original(*arguments, **others)  # type: ignore[arg-type]
        ended.append(fitted.network.state_dict())
        steps.append(len(fitted.history))
        return fitted

    monkeypatch.setattr(step, "fit", fit)
    places = {"prepared": prepared, "also": [], "out": tmp_path / "out"}
    table = ablate(config, TASK, networks, seeds=1, **places)
    assert labels == ["scratch, seed 10", "swin without labels, seed 10", "few, seed 10",
                      "swin without labels, seed 10", "all, seed 10"]  # fmt: skip
    # Which is trained once: the second time its state is at its end.
    assert steps == [1, 2, 1, 2, 1]
    for pretrained, started in ((1, 2), (3, 4)):
        weights = {
            name: value for name, value in ended[pretrained].items() if value.shape == begun[started][name].shape
        }
        assert 20 < len(weights) < len(begun[started])  # all but what gives three classes from two windows
        assert all(torch.equal(begun[started][name], value) for name, value in weights.items())
    assert len(list((tmp_path / "out" / "pretrained").glob("swin-10/*/training.json"))) == 1
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())["results"]
    assert len({json.dumps(result["scores"]) for result in found}) > 1
    assert len({result["key"] for result in found}) == 3
    assert [line.split(" | ")[0] for line in table.splitlines()[2:5]] == ["| scratch", "| few", "| all"]
    # Again: nothing is trained. What trains without labels is part of the key of what starts from it.
    labels.clear()
    assert ablate(config, TASK, networks, seeds=1, **places) == table
    assert labels == []
    pretrain = config.segmentation.pretrain.model_copy(update={"share": 0.3})
    other = config.model_copy(update={TASK: config.segmentation.model_copy(update={"pretrain": pretrain})})
    ablate(other, TASK, networks, seeds=1, **places)
    assert labels == ["swin without labels, seed 10", "few, seed 10", "swin without labels, seed 10", "all, seed 10"]


def test_settings_of_a_training_are_checked_before_anything_is_trained(
    world: tuple[Config, Path], tmp_path: Path
) -> None:
    config, prepared = world
    places = {"prepared": prepared, "also": [], "out": tmp_path / "out", "seeds": 1}
    with pytest.raises(ConfigError, match=r"variants\.a\.train: labeled: no such key; did you mean 'labelled'"):
        ablate(config, TASK, study(a={"train": {"labeled": 0.5}}), **places)
    with pytest.raises(ConfigError, match=r"variants\.a\.train: labelled"):
        ablate(config, TASK, study(a={"train": {"labelled": 2}}), **places)
    train = config.segmentation.train.model_copy(update={"initial": "models/x"})
    started = config.model_copy(update={TASK: config.segmentation.model_copy(update={"train": train})})
    with pytest.raises(ConfigError, match=r"segmentation\.train\.initial: a study says itself"):
        ablate(started, TASK, study(a={}), **places)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["labels", "labels-light"])
def test_ready_studies_of_labels_can_be_built(name: str) -> None:
    found = load_study(name, TASK).variants
    for row in found.values():
        create_model(row.network, preset=row.preset, in_channels=2, out_channels=3, **row.overrides)
    assert any(row.pretrained for row in found.values())
    assert {row.train.get("labelled", 1.0) for row in found.values()} >= {0.05}
