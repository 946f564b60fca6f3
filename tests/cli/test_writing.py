"""No command writes over what others made, and each says so at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from condswin.config.profiles import compose, write_config
from tests.cli.calling import condswin

#: Every command that writes, with inputs that are not there: its place is refused before anything is read.
WRITING = {
    "folder": [
        ["demo-data", "reconstruction", "--out"],
        ["demo-data", "segmentation", "--out"],
        ["ingest", "reconstruction", "--out"],
        ["ingest", "segmentation", "--out"],
        ["undersample", "--out"],
        ["prepare-ct", "--out"],
        ["train", "reconstruction", "swin", "--out"],
        ["pretrain", "segmentation", "swin", "--out"],
        ["evaluate", "reconstruction", "swin", "--out"],
        ["evaluate", "segmentation", "--targets", "t", "--predictions", "p", "--out"],
        ["baseline", "reconstruction", "--out"],
        ["data-card", "segmentation", "--out"],
        ["gallery", "scan.h5", "--out"],
        ["predict", "--model", "m", "params.yaml", "--out"],
        ["code", "reconstruction", "--out"],
        ["tune", "reconstruction", "swin", "--out"],
    ],
    "file": [
        ["compare", "segmentation", "--out"],
        ["register", "reconstruction", "--out"],
        ["promote", "reconstruction", "--out"],
        ["report", "--out"],
        ["report", "evaluation/reconstruction/swin", "--out"],
        ["view", "params.yaml", "--out"],
        ["export", "m", "--out"],
        ["bench", "swin", "--out"],
    ],
}


@pytest.mark.parametrize("kind", WRITING)
def test_no_command_touches_what_others_made(kind: str, tmp_path: Path) -> None:
    write_config(compose(["demo", "tiny"]), tmp_path / "params.yaml", comment="")
    (tmp_path / "mine/code").mkdir(parents=True)
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    (tmp_path / "mine/code/train.py").write_text("pass")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    places = {"mine": "holds code, thesis.tex"} if kind == "folder" else {"mine/thesis.tex": "not written by condswin"}
    places |= {"mine/thesis.tex": "is a file"} if kind == "folder" else {"mine": "is a folder"}
    places["mine/thesis.tex/below"] = "is a file, a folder is needed"
    for command in WRITING[kind]:
        for place, message in places.items():
            error = condswin(*command, place, cwd=tmp_path, code=1)
            assert error.startswith(f"error: {place.removesuffix('/below') if kind == 'file' else place}: "), command
            assert message in error, command
            assert error.count("\n") == 1, command
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_places_are_refused_before_anything_slow_is_imported(tmp_path: Path) -> None:
    write_config(compose(["demo", "tiny"]), tmp_path / "params.yaml", comment="")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    script = f"""
import contextlib, io, sys
from condswin.cli import main
for kind, commands in {WRITING!r}.items():
    for command in commands:
        sys.argv = ["condswin", *command, "mine" if kind == "folder" else "mine/thesis.tex"]
        try:
            main()
        except SystemExit as ended:
            assert ended.code == 1, command
        slow = [name for name in ("torch", "mlflow", "matplotlib", "h5py", "nibabel", "optuna") if name in sys.modules]
        assert not slow, (command, slow)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_demo_data_elsewhere_than_the_source_is_none_and_the_answer_says_why(tmp_path: Path) -> None:
    write_config(compose(["demo", "tiny"]), tmp_path / "params.yaml", comment="")
    answer = condswin("demo-data", "segmentation", "--out", "other", cwd=tmp_path)
    assert answer == (
        "other: 0 cases, since segmentation.source is data/demo/segmentation; "
        "--set segmentation.source=other generates them\n"
    )
    setting = answer.split("--set ")[1].split()[0]
    answer = condswin("demo-data", "segmentation", "--out", "other", "--set", setting, cwd=tmp_path)
    assert answer != "other: 0 cases\n"
    assert answer.endswith(" cases\n")
