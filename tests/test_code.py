"""What a step's result depends on: no module that it runs is missed, none that it leaves alone is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from condswin.code import closure
from condswin.config.names import OWN, TASKS, TaskName
from condswin.config.profiles import write_config
from condswin.config.root import Config
from condswin.steps.code import STEPS, code
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare

ROOT = Path(__file__).parents[1]

#: Runs a step with the parameters of a folder; prints the modules of condswin that were loaded once these were read.
SCRIPT = """
import sys
from pathlib import Path
from condswin.config.reading import load_config
config, task = load_config(Path("params.yaml")), sys.argv[1]
before = set(sys.modules)
{call}
print("LOADED", *(name for name in set(sys.modules) - before if name.split(".")[0] == "condswin"))
"""
#: The steps, each on what those before it left.
CALLS = {
    "demo_data": 'demo_data(config, task, out=Path("new/demo", task))',
    "ingest": 'ingest(config, task, source=f"data/demo/{task}", out=Path("new/ingested", task))',
    "prepare": 'prepare(config, task, ingested=Path("data/ingested", task), out=Path("new/prepared", task))',
    "train": 'train(config, task, "swin", prepared=Path("data/prepared", task), checkpoints=Path("c", task), '
    'out=Path("model", task))',
    "evaluate": 'evaluate(config, task, model=Path("model", task), prepared=Path("data/prepared", task), '
    'out=Path("evaluation", task))',
    "baseline": 'baseline(config, task, prepared=Path("data/prepared", task), out=Path("baseline"))',
}


@pytest.fixture(scope="module")
def world(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with prepared data of both tasks."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_config(tiny, folder / "params.yaml", comment="tiny")
        for task in TASKS:
            demo_data(tiny, task, out=Path("data/demo", task))
            ingest(tiny, task, source=f"data/demo/{task}", out=Path("data/ingested", task))
            prepare(tiny, task, ingested=Path("data/ingested", task), out=Path("data/prepared", task))
    return folder


def loaded(folder: Path, step: str, task: TaskName) -> set[str]:
    """Modules that a step loads in a process of its own."""
    script = SCRIPT.replace("{call}", f"from condswin.steps.{step} import {step}; {CALLS[step]}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, task]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED ")[2].split())


def modules(step: str, task: TaskName) -> set[str]:
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in closure(step, task)}
    return {name for name in names if not name.endswith(".html")}


@pytest.mark.parametrize("task", TASKS)
def test_no_module_that_a_step_loads_is_missed(world: Path, task: TaskName) -> None:
    for step in CALLS:
        if task in STEPS[step]:
            missed = loaded(world, step, task) - modules(step, task)
            assert not missed, f"{step} runs what its key does not know of"


def test_closures_follow_what_is_imported_and_stop_there() -> None:
    def files(step: str, task: TaskName = "reconstruction") -> set[str]:
        return {path.removeprefix("condswin/") for path in closure(step, task)}

    assert "networks/routers.py" in files("train")
    assert "networks/routers.py" not in files("prepare") | files("ingest") | files("baseline")
    assert "mri/masks.py" in files("prepare") & files("train")
    assert "mri/masks.py" not in files("ingest") | files("demo_data")
    assert "mri/demo/phantom.py" in files("demo_data")
    assert not any("phantom" in path for path in files("train"))
    assert not any("pictures" in path for path in files("train") | files("prepare"))
    assert "mri/pictures.py" in files("evaluate")
    assert "reporting/report.html" in files("report")
    for step, tasks in STEPS.items():
        for task in tasks:
            other = "condswin/ct/" if task == "reconstruction" else "condswin/mri/"
            assert not [path for path in closure(step, task) if path.startswith(other)], (step, task)
            assert not [path for path in closure(step, task) if path.startswith("condswin/cli/")]


def test_stages_of_dvc_depend_on_the_code_of_their_step_and_no_other() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    steps = {"undersample": "prepare", "prepare-ct": "prepare"}
    asked = set()
    for name, stage in stages.items():
        body = stage.get("do", stage)
        command = body["cmd"].split()[1]
        found = {dep for dep in body.get("deps", []) if dep.startswith("code/")}
        if command in ("code", "register", "promote"):  # the last two act elsewhere, and are run every time
            assert not found
            assert command == "code" or body["always_changed"]
            continue
        (dep,) = found
        task, step = dep.removeprefix("code/").removesuffix(".json").split("/")
        assert step == steps.get(command, command.replace("-", "_")), name
        assert task in body["cmd"] or command in ("undersample", "prepare-ct", "report"), name
        asked.add(dep)
    written = {f"code/{task}/{step}.json" for step, tasks in STEPS.items() for task in tasks if task in OWN}
    assert asked == written | {"code/report/report.json"}


def test_files_of_equal_code_are_left_as_they_are(tmp_path: Path) -> None:
    paths = code("reconstruction", out=tmp_path / "code")
    before = {path: path.stat().st_mtime_ns for path in paths}
    assert json.loads((tmp_path / "code/train.json").read_text()) == closure("train", "reconstruction")
    assert {path: path.stat().st_mtime_ns for path in code("reconstruction", out=tmp_path / "code")} == before


def test_the_report_depends_on_the_code_for_all_tasks(tmp_path: Path) -> None:
    (path,) = code("report", out=tmp_path / "code")
    files = json.loads(path.read_text())
    assert {"condswin/mri/facts.py", "condswin/ct/facts.py", "condswin/reporting/report.html"} <= set(files)
