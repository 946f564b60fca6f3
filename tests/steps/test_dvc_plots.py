"""What `dvc plots` draws of the tables that `condswin report` leaves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from condswin.reporting.plots import curve_rows, gain_rows, score_rows, write_table
from tests.reporting.pages import scores

ROOT = Path(__file__).parents[2]


def run(folder: Path, *command: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder), **identity}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(folder: Path, *command: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of each plot, after the template was filled in."""
    plots = json.loads(run(folder, "dvc", "plots", *command, "--json"))["data"]
    return {name: plot[0]["content"]["data"]["values"] for name, plot in plots.items()}


def test_tables_are_drawn_and_compared_with_those_of_a_commit(tmp_path: Path) -> None:
    run(tmp_path, "git", "init", "-q")
    run(tmp_path, "dvc", "init", "-q")
    shutil.copytree(ROOT / ".dvc/plots", tmp_path / ".dvc/plots")
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"plots": plots}))
    history = [{"epoch": str(epoch), "train/loss": str(1 / (epoch + 1))} for epoch in range(3)]
    tables = {
        "curves": curve_rows({"swin": history}, scores().facts),
        "scores": score_rows(scores()),
        "gains": gain_rows(scores()),
    }
    for name, rows in tables.items():
        write_table(tmp_path / f"report/plots/{name}/reconstruction.csv", rows)
    found = shown(tmp_path, "show")
    assert {name: len(rows) for name, rows in found.items()} == {
        f"report/plots/{name}/reconstruction.csv": len(rows) for name, rows in tables.items()
    }
    run(tmp_path, "git", "add", "-A")
    run(tmp_path, "git", "commit", "-qm", "before")
    worse = [{**row, "gain": float(row["gain"]) - 1} for row in tables["gains"]]
    write_table(tmp_path / "report/plots/gains/reconstruction.csv", worse)
    both = shown(tmp_path, "diff", "HEAD")["report/plots/gains/reconstruction.csv"]
    gains = {row["rev"]: float(row["gain"]) for row in both if (row["against"], row["metric"]) == ("swin", "psnr")}
    assert gains["workspace"] == gains["HEAD"] - 1
