"""The package outside a clone: what the wheel holds, and that its commands run with it alone."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from condswin.config.profiles import profile_names

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("condswin", "components", "pipelines"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, tree]
    subprocess.run(command, check=True)
    (built,) = out.iterdir()
    return built


def test_the_wheel_holds_every_file_of_the_library_and_nothing_else(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [path for path in (ROOT / "condswin").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert names == {path.relative_to(ROOT).as_posix() for path in files}
    assert {"condswin/py.typed", "condswin/profiles/demo.yaml", "condswin/reporting/report.html"} <= names


def test_commands_run_from_the_wheel_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    place, folder = tmp_path / "venv", tmp_path / "folder"
    folder.mkdir()
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    (packages,) = place.glob("lib/*/site-packages")
    # What the package needs; not this environment's condswin, which is the clone's.
    needed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "needed.pth").write_text("\n".join(needed))

    def condswin(*words: str) -> list[dict[str, object]]:
        done = subprocess.run(
            [place / "bin/condswin", *words, "--json"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    assert [each["name"] for each in condswin("params", "list")] == profile_names()
    assert condswin("params", "use", "demo", "tiny")[0]["profiles"] == ["demo", "tiny"]
    (generated,) = condswin("demo-data", "segmentation")
    (ingested,) = condswin("ingest", "segmentation")
    assert generated["cases"] == sum(ingested["cases"].values())  # type: ignore[attr-defined]
    script = (
        "import condswin, sys; from condswin.config.study import load_study; from condswin.config.profiles import *\n"
        "from condswin.config.search import load_search; from condswin.reporting import html\n"
        "print(condswin.__file__); load_study('routing', 'reconstruction')\n"
        "load_search('learning', compose(['demo']), 'reconstruction', 'swin')"
    )
    done = subprocess.run([python, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(packages / "condswin/__init__.py"), done.stderr
