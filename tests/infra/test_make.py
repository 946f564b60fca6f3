"""What `make` says before it downloads anything, and what it removes; in copies of the tree, with pretended Pythons."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from condswin.outputs import open_output, write_result

ROOT = Path(__file__).parents[2]
#: Fails what the Makefile asks of Python: its version, or its modules.
OTHER_VERSION, NO_VENV = "version_info", "ensurepip"


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ours = ("MAKE", "MFLAGS", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PATH"] = f"{folder / 'fakes'}:{environment['PATH']}"
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def pretend(folder: Path, name: str, failing: str) -> None:
    """Puts a Python first on PATH that fails where `failing` is in its arguments."""
    fake = folder / "fakes" / name
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(f'#!/bin/sh\ncase "$*" in *{failing}*) exit 1 ;; esac\n')
    fake.chmod(0o755)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_takes_the_python_that_is_3_11(copy: Path) -> None:
    pretend(copy, "python3", OTHER_VERSION)
    assert "\npython3.11 -m venv .venv\n" in make(copy, "--dry-run", ".venv/installed").stdout
    pretend(copy, "python3.11", OTHER_VERSION)
    pretend(copy, "python3", "nothing")
    assert "\npython3 -m venv .venv\n" in make(copy, "--dry-run", ".venv/installed").stdout
    assert "\n/my/python -m venv .venv\n" in make(copy, "--dry-run", ".venv/installed", "PYTHON=/my/python").stdout


def test_says_what_is_missing(copy: Path) -> None:
    def said(*arguments: str) -> str:
        ended = make(copy, ".venv/installed", *arguments)
        assert ended.returncode
        assert not (copy / ".venv").exists()
        (line,) = ended.stdout.splitlines()
        return line

    assert "GB are free" not in said("PYTHON=no-python")
    assert said("DISK=1000000").startswith("Installing needs 1000000 GB")
    pretend(copy, "python3.11", NO_VENV)
    assert said().endswith("apt install python3.11-venv")
    pretend(copy, "python3.11", OTHER_VERSION)
    pretend(copy, "python3", OTHER_VERSION)
    assert said().startswith("Python 3.11 is needed")


def test_builds_kubernetes_in_a_folder_with_a_space(copy: Path) -> None:
    said = make(copy, "--dry-run", "kube-binaries", "KUBE_BINARIES=/a folder").stdout
    assert 'tests/kube/build.sh "/a folder"\n' in said


def test_refuses_an_environment_of_another_python(copy: Path) -> None:
    pretend(copy, "python", OTHER_VERSION)
    (copy / ".venv").mkdir()
    (copy / "fakes").rename(copy / ".venv" / "bin")
    assert "remove it" in make(copy, ".venv/installed").stdout


#: Says what it is asked to install, and has the CPU build of torch where the file `has-cpu` is.
PIP = """#!/bin/sh
case "$*" in
  *--dry-run*) test -e has-cpu ;;
  *) shift 3; echo "pip $*" ;;
esac
"""


@pytest.mark.parametrize(
    ("arguments", "has_cpu", "said", "taken"),
    [
        (["DRIVER="], True, "cpu build: no NVIDIA driver is here", "torch==2.0.0+cpu"),
        (["DRIVER="], False, "cuda build: no index that pip asks has the CPU build", "torch==2.0.0,!=2.0.0+cpu"),
        (["DRIVER=yes"], True, "cuda build: an NVIDIA driver is here", "torch==2.0.0,!=2.0.0+cpu"),
        (["DRIVER=", "TORCH=cuda"], True, "", "torch==2.0.0,!=2.0.0+cpu"),
        (["DRIVER=yes", "TORCH=cpu"], True, "", "torch==2.0.0+cpu"),
        (["TORCH=cpu"], False, "TORCH=cpu: no index that pip asks has torch 2.0.0+cpu", None),
        (["TORCH=gpu"], True, "TORCH=gpu: say cpu or cuda", None),
        (["DRIVER=yes", "DISK=1000000"], True, "Installing needs 1000000 GB", None),
    ],
)
def test_the_build_of_torch_that_suits_is_taken_or_the_one_that_is_wanted(
    copy: Path, arguments: list[str], has_cpu: bool, said: str, taken: str | None
) -> None:
    (copy / "requirements.lock").write_text("numpy==2.0.0\ntorch==2.0.0\ntorchmetrics==1.9.0\n")
    (copy / ".venv/bin").mkdir(parents=True)
    (copy / ".venv/bin/python").symlink_to(sys.executable)
    (copy / ".venv/bin/pip").write_text(PIP)
    (copy / ".venv/bin/pip").chmod(0o755)
    if has_cpu:
        (copy / "has-cpu").touch()
    ended = make(copy, ".venv/installed", *arguments, *([] if "DISK=1000000" in arguments else ["DISK=0"]))
    assert said in ended.stdout
    assert (copy / ".venv/installed").exists() == (ended.returncode == 0) == (taken is not None)
    installed = [line for line in ended.stdout.splitlines() if line.startswith("pip ")]
    wanted = [f"pip -r requirements.lock {taken}", "pip --no-deps --no-build-isolation -e ."] if taken else []
    assert installed == wanted


def test_locking_that_fails_leaves_the_lock(copy: Path) -> None:
    pip = copy / "fakes" / "pip"
    python = copy / "fakes" / "python3.11"
    python.parent.mkdir()
    python.write_text(
        '#!/bin/sh\ncase "$*" in *venv*) mkdir -p build/lock/bin && cp fakes/pip build/lock/bin ;; esac\n'
    )
    pip.write_text('#!/bin/sh\ncase "$1" in freeze) echo torch==2.0.0+cpu; exit $(cat status) ;; esac\n')
    for path in (python, pip):
        path.chmod(0o755)
    before = (copy / "requirements.lock").read_text()
    (copy / "status").write_text("1")
    assert make(copy, "lock").returncode
    assert (copy / "requirements.lock").read_text() == before
    (copy / "status").write_text("0")
    assert make(copy, "lock").returncode == 0
    assert (copy / "requirements.lock").read_text() == "torch==2.0.0\n"


def test_cleaning_removes_what_the_pipeline_made_and_nothing_else(copy: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / ".dvc", copy / ".dvc", ignore=lambda *_: ["cache", "tmp"])
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
    (copy / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (copy / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (copy / ".venv" / "installed").touch()
    made = {"data/demo/segmentation/a", "data/prepared/reconstruction/a", "models/segmentation/swin/a"}
    for name in made:
        folder = copy / Path(name).parent
        output = open_output(folder, step="test", inputs=[])
        output.claim(["a"])
        (folder / "a").touch()
        output.finish(["a"])
    write_result(copy / "comparison/reconstruction.json", "compare", {})
    ours = {"data/lits/a", "data/ingested/own/a", "models/own/a", "checkpoints/segmentation/swin/a", "mlflow.db"}
    # Where the pipeline would write, but did not: somebody's source in the place of demo data, notes beside a model.
    ours |= {
        "data/demo/reconstruction/scan.h5",
        "models/segmentation/swin/notes.txt",
        "promotion/segmentation/registered.json",
    }
    for name in ours:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).touch()
    said = make(copy, "clean").stdout.splitlines()
    assert {line for line in said if line.startswith("removed")} == {
        "removed data/demo/segmentation",
        "removed data/prepared/reconstruction",
        "removed comparison/reconstruction.json",
    }
    kept = "kept, since others wrote there: "
    assert {line.removeprefix(kept) for line in said if line.startswith(kept)} == {
        "data/demo/reconstruction",
        "models/segmentation/swin",
        "promotion/segmentation/registered.json",
    }
    assert not [name for name in made if (copy / name).exists()]
    assert all((copy / name).exists() for name in ours)


def test_a_run_of_one_task_makes_what_the_report_needs_beside_it() -> None:
    """The report belongs to no task, so nothing of it is made with a task's stages."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    *before, last = re.search(r"--single-item ([\w -]+),", (ROOT / "Makefile").read_text())[1].split()
    made = {place for name in before for out in stages[name]["outs"] for place in out}
    needed = {dep for dep in stages[last]["deps"] if dep.startswith("code/")}
    assert needed
    assert {str(Path(dep).parent) for dep in needed} <= made
