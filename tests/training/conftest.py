from pathlib import Path

import pytest
import torch

from condswin.config.root import Config
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.training.loaders import training_loader
from tests.training.runs import TASK, weights


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny: Config) -> Path:
    folder = tmp_path_factory.mktemp("data")
    section = tiny.reconstruction.model_copy(update={"source": str(folder / "raw")})
    demo_data(tiny.model_copy(update={TASK: section}), TASK, out=folder / "raw")
    ingest(tiny, TASK, source=str(folder / "raw"), out=folder / "in")
    prepare(tiny, TASK, ingested=folder / "in", out=folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def unbroken(tiny: Config, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    return weights(tiny, prepared, tmp_path_factory.mktemp("unbroken"))


@pytest.fixture(scope="module")
def batches(tiny: Config, prepared: Path) -> int:
    slices = load(Learning, TASK, tiny).dataset(prepared, "train", "conditional-light", training=True)
    train = tiny.reconstruction.train.model_copy(update={"batch_size": 1})
    number = len(training_loader(slices, train, seed=1, rank=0, ranks=1))
    assert number > 3
    return number
