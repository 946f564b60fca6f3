"""Names of files and acquisitions that something might interpret: they go through every command as they are."""

import json
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from condswin import reporting
from condswin.config.names import TASKS
from condswin.config.profiles import compose, write_config
from tests.cli.calling import condswin
from tests.ct import fakes

#: Formulas of matplotlib, markup of rich, HTML, control sequences of terminals, lines, options, shells, a long one.
NAMES = [
    r"$\frac{1}{$",
    "[/b]:smile:",
    "<script>alert(1)<script>",
    "two\nlines",
    "\x1b]0;title\x07",
    "-rf",
    "$HOME;|`x`%s{0}",
    os.fsdecode(b"latin\xe9"),
    "x" * 230,
]


def write_scan(path: Path, acquisition: str, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    kspace = np.random.default_rng(seed).standard_normal((2, 32, 32, 2), dtype=np.float32).view(np.complex64)[..., 0]
    with h5py.File(path, "w") as file:
        file["kspace"], file["reconstruction_esc"] = kspace, np.abs(np.fft.fft2(kspace)).astype(np.float32)
        file.attrs["acquisition"] = acquisition.encode("utf-8", "replace").decode()
        file.attrs["patient_id"] = str(seed)


def sources(task: str, folder: Path) -> None:
    """A case of each name, and of each acquisition."""
    for number, text in enumerate(NAMES):
        name = text.replace("/", "")
        if task == "reconstruction":
            write_scan(folder / f"{name}.h5", text, number)
        else:
            for role, array in zip(("volume", "segmentation"), fakes.anatomy((40, 36, 3), number), strict=True):
                fakes.write(folder / f"{role}-{name}.nii.gz", array)


@pytest.mark.parametrize("task", TASKS)
def test_hostile_names_pass_through_every_command(task: str, tmp_path: Path) -> None:
    variants = f"{task}.variants={{swin: {{overrides: {{embedding: 16, heads: [2, 2]}}}}}}"
    config = compose(["demo", "tiny"], [f"{task}.train.epochs=1", variants])
    write_config(config, tmp_path / "params.yaml", comment="")
    sources(task, tmp_path / "raw")
    said = condswin("ingest", task, "--source", "raw", cwd=tmp_path)
    assert "0 rejected" in said
    condswin("data-card", task, cwd=tmp_path)
    condswin("prepare", task, cwd=tmp_path)
    condswin("train", task, "swin", cwd=tmp_path)
    said += condswin("evaluate", task, "swin", cwd=tmp_path)
    condswin("compare", task, cwd=tmp_path)
    condswin("register", task, cwd=tmp_path)
    # With the run that trained it, and with the version, where the drift pipeline looks for it.
    assert len(list((tmp_path / "mlartifacts").rglob("data-card/card.json"))) == 2
    condswin("report", cwd=tmp_path)
    said += condswin("summary", cwd=tmp_path)
    results = tmp_path / "evaluation" / task / "swin"
    prepared, predictions = tmp_path / "data/prepared" / task, str(results / "predictions/test")
    scored = ["evaluate", task, "--predictions", predictions, "--targets"]
    error = condswin(*scored, str(prepared / "train"), cwd=tmp_path, code=1)
    assert error.count("\n") == 1
    assert error[:-1].isprintable()
    said += condswin(*scored, str(prepared / "test"), "--out", "scores", cwd=tmp_path)
    model = f"models/{task}/swin"
    lines = condswin("predict", "raw", "--model", model, "--out", "out", "--png", "--json", "--force", cwd=tmp_path)
    assert sorted(Path(json.loads(line)["input"]).name for line in lines.splitlines()) == sorted(
        path.name for path in (tmp_path / "raw").iterdir() if not path.name.startswith("segmentation")
    )
    said += condswin("predict", "raw", "--model", model, "--out", "out2", cwd=tmp_path)
    if task == "reconstruction":
        files = [f"raw/{name}.h5" for name in (NAMES[0], NAMES[2])]
        said += condswin("gallery", *files, "--weight", "0.01", "--out", "gallery", cwd=tmp_path)
        table = (tmp_path / "gallery/reconstructions.md").read_text()
        assert "<script>" not in table.replace(r"\<script\>", "")
    assert said.replace("\n", "").isprintable()
    # The report's own script, and no other.
    own = (Path(reporting.__file__).parent / "report.html").read_text().count("<script")
    for page in (tmp_path / "report").rglob("*.html"):
        text = page.read_text()
        assert text.count("<script") == (own if page.name == "report.html" else 0)
        assert "alert(1)" not in "".join(re.findall(r"<script>(.*?)</script>", text, re.DOTALL))
