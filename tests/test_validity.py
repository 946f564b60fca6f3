"""Results follow the code: an edit of what a step runs makes it run again, any other edit does not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from condswin.config.profiles import write_config
from condswin.config.root import Config
from condswin.validity import Key

ROOT = Path(__file__).parents[1]

#: Goes from demo data to a scored network and says what was done.
SCRIPT = """
import json
from pathlib import Path
from condswin.config.reading import load_config
from condswin.config.task import Study, StudyVariant
from condswin.mri.source import ReconstructionSource
from condswin.steps.ablate import ablate
from condswin.steps.baseline import baseline
from condswin.steps.demo_data import demo_data
from condswin.steps.evaluate import evaluate
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare
from condswin.steps.train import train

task, variant = "reconstruction", "conditional-light"
config = load_config(Path("params.yaml"))
checked = []
check = ReconstructionSource.check_case
ReconstructionSource.check_case = lambda self, case: checked.append(case.name) or check(self, case)
raw = Path("data/demo", task)
if not raw.exists():
    demo_data(config, task, out=raw)
ingested, prepared, model = Path("ingested"), Path("prepared"), Path("model")
ingest(config, task, source=str(raw), out=ingested)
prepare(config, task, ingested=ingested, out=prepared)
train(config, task, variant, prepared=prepared, checkpoints=Path("checkpoints"), out=model)
evaluate(config, task, model=model, prepared=prepared, out=Path("evaluation"))
baseline(config, "reconstruction", prepared=prepared, out=Path("baseline"))
overrides = config.reconstruction.variants[variant].overrides
study = Study(variants={"a": StudyVariant(network=variant, overrides=overrides)})
ablate(config, task, study, prepared=prepared, also=[], seeds=1, out=Path("ablation"))
results = {
    "prepare": sorted(prepared.glob("test/*.h5"))[0],
    "train": model / "model.json",
    "evaluate": Path("evaluation/metrics.json"),
    "baseline": Path("baseline/metrics.json"),
    "ablate": next(Path("ablation").rglob("scores.json")),
}
print("DONE", json.dumps({"ingest": len(checked), **{name: path.stat().st_mtime_ns for name, path in results.items()}}))
"""


class Tree:
    """A copy of condswin that can be edited, and a working folder."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.code, self.work = folder / "code", folder / "work"
        shutil.copytree(ROOT / "condswin", self.code / "condswin", ignore=shutil.ignore_patterns("__pycache__"))
        self.work.mkdir()
        train = config.reconstruction.train.model_copy(update={"epochs": 1})
        section = config.reconstruction.model_copy(update={"train": train})
        write_config(config.model_copy(update={"reconstruction": section}), self.work / "params.yaml", comment="tiny")
        self.said = ""
        self.before = self._run()

    def edit(self, module: str) -> set[str]:
        """Edits a module; returns the steps that were done again."""
        path = self.code / "condswin" / module
        path.write_text(path.read_text() + "\n\nEDITED = True\n")
        after = self._run()
        redone = {name for name, mark in after.items() if name != "ingest" and mark != self.before[name]}
        if after["ingest"]:
            redone.add("ingest")
        self.before = after
        return redone

    def _run(self) -> dict[str, int]:
        environment = {**os.environ, "PYTHONPATH": str(self.code), "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "MLFLOW_TRACKING_URI": f"sqlite:///{self.work}/mlflow.db"}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.said = done.stderr
        counts: dict[str, int] = json.loads(done.stdout.rpartition("DONE ")[2])
        return counts


@pytest.fixture(scope="module")
def tree(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("tree"), tiny)


@pytest.mark.pipeline
def test_edits_of_code_redo_what_uses_it_and_nothing_else(tree: Tree) -> None:
    assert tree.edit("mri/pictures.py") == {"evaluate", "baseline"}
    assert tree.edit("networks/routers.py") == {"train", "evaluate", "ablate"}
    # A training that starts anew says why.
    assert "starts anew, since the last checkpoint: code changed: condswin/networks/routers.py" in tree.said
    assert tree.edit("mri/masks.py") == {"prepare", "train", "evaluate", "ablate", "baseline"}
    assert tree.edit("mri/source.py") == {"ingest", "ablate"}
    unused = ("cli/data.py", "config/profiles.py", "mri/card.py", "reporting/text.py", "ct/learning.py", "mri/guard.py")
    for module in unused:
        path = tree.code / "condswin" / module
        path.write_text(path.read_text() + "\n\nEDITED = True\n")
    assert tree.edit("mri/generation.py") == set()


def test_changes_are_said_by_name() -> None:
    old = Key({"seed": 1, "window": 3}, {"data": "a"}, {"condswin/a.py": "1", "condswin/b.py": "1"})
    new = Key(
        {"seed": 2, "window": 3}, {"data": "b"}, {"condswin/a.py": "1", "condswin/b.py": "2", "condswin/c.py": "1"}
    )
    assert new.changes_since(old.record()) == [
        "parameters changed: seed",
        "inputs changed: data",
        "code changed: condswin/b.py, condswin/c.py",
    ]
    assert new.changes_since(new.record()) == []
    assert old.digest != new.digest
    assert Key({}, {}, {"a": "1"}).changes_since({}) == ["code changed: a"]
