import io
import os
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from condswin.config.profiles import compose
from condswin.evaluation.summary import paired_gain, summarise
from condswin.progress import progress
from condswin.reporting.text import (
    case_rows,
    print_summary,
    print_tables,
    print_trials,
    shown,
    table_rows,
    where_to_look,
)
from condswin.tasks.facts import Facts
from condswin.tasks.loading import load


def test_cases_stand_worst_first_with_undefined_ones_last() -> None:
    task = load(Facts, "segmentation", compose(["demo"]))
    blank = dict.fromkeys(task.metrics, "nan")
    rows = [
        {**blank, "case": "volume-2", "liver_dice": "0.9", "other": "1"},
        {**blank, "case": "volume-10", "liver_dice": "0.51234", "tumour_hd95": "12.5", "other": "1"},
        {**blank, "case": "volume-3", "other": "1"},
    ]
    table = case_rows(task, [{"tumour_hd95": "nan", **row} for row in rows])
    assert [row["case"] for row in table] == ["volume-10", "volume-2", "volume-3"]
    assert table[0]["liver_dice"] == "0.512"
    assert table[0]["tumour_hd95"] == "12.500"
    assert table[2]["liver_dice"] == "-"
    assert "other" not in table[0]
    assert list(table[0])[:2] == ["case", "liver_dice"]
    assert case_rows(task, []) == []


def test_the_best_variant_stands_first_and_is_compared_case_by_case(capsys: pytest.CaptureFixture[str]) -> None:
    config = compose(["demo"])
    task = load(Facts, "reconstruction", config)
    metrics = list(task.metrics)

    def rows(psnr: list[float]) -> list[dict[str, float | str]]:
        return [{"case": str(at), **dict.fromkeys(metrics, 0.5), "psnr": value} for at, value in enumerate(psnr)]

    cases = {"swin": rows([25, 29]), "unrolled-swin": rows([28, 32]), "compressed sensing": rows([26, 31])}
    tested = {name: {"test": summarise(found, metrics)} for name, found in cases.items()}
    for splits in tested.values():
        splits["test"]["zero-filled"] = summarise(rows([20, 20]), metrics)
    reference = {"compressed sensing": tested.pop("compressed sensing")}
    best = {"best": "unrolled-swin", "metric": "psnr", "chosen_on": "val", "reference_methods": reference}
    gains = {"psnr": paired_gain(cases["unrolled-swin"], cases["compressed sensing"], "psnr")}
    decision = {"version": "2", "champion": None, "promoted": False, "outcome": "undecided", "reasons": ["2 patients"]}
    comparison = {**best, "variants": tested, "gains": {"compressed sensing": gains}, "promotion": decision}
    table = table_rows(task, comparison)
    assert [row["variant"] for row in table] == ["unrolled-swin *", "compressed sensing", "zero-filled", "swin"]
    assert [row["psnr"] for row in table] == ["30.00 ± 2.83", "28.50 ± 3.54", "20.00 ± 0.00", "27.00 ± 2.83"]
    further = {"report": None, "mlflow": "http://registry"}
    print_tables(config, {"reconstruction": comparison}, further)
    line = "unrolled-swin minus compressed sensing, case by case, with 95 % interval: psnr 1.50 (1.00 to 2.00)"
    said = capsys.readouterr().out
    assert f"{line}\nundecided: version 2 is not promoted, there is no champion\n  2 patients\n" in said
    print_tables(config, {"reconstruction": {**comparison, "promotion": None}}, further)
    assert "undecided" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [("psnr", 31.276, "31.28"), ("ssim", 0.72, "0.720"), ("mae", 1.234e-6, "1.23e-06"), ("mae", 0.0, "0.000")],
)
def test_small_values_are_not_shown_as_nothing(metric: str, value: float, text: str) -> None:
    assert shown(metric, value) == text


def test_names_in_tables_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"psnr": {"mean": 1.0, "std": 0.0, "low": 1.0, "high": 1.0, "cases": 2}}
    kinds = ["[/b]", ":smile:", "a\x1b[2Jb", "all", "[red]x"]
    print_summary({**summary, "acquisitions": dict.fromkeys(kinds, summary)})
    out = capsys.readouterr().out
    for name in ("[/b] (2)", ":smile: (2)", r"a\x1b[2Jb (2)", "[red]x (2)"):
        assert name in out
    assert out.count("all (2)") == 2


def test_details_stand_in_the_summary_without_a_reference(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"mean": 0.25, "std": 0.5, "low": 0.0, "high": 0.75, "cases": 4}
    print_summary({"psnr": one, "fallback": one, "zero-filled": {"psnr": one}})
    line = next(line for line in capsys.readouterr().out.splitlines() if "fallback" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")][1:3] == ["fallback", "0.250"]
    assert line.rstrip("│ ").endswith("-")


def test_one_case_and_none_have_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    one, none = summarise([{"a": 24.04, "b": float("nan")}], ["a", "b"]).values()
    print_summary({"psnr": one, "ssim": none, "zero-filled": {"psnr": one, "ssim": none}})
    assert " to " not in capsys.readouterr().out


def test_progress_has_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    console = Console(file=terminal, force_terminal=True, width=120)
    monkeypatch.setattr("condswin.progress._console", lambda: console)
    with progress("segment [/b]\x1b]0;x\x07", 1) as advance:
        advance("[/i]")
    assert r"segment [/b]\x1b]0;x\x07" in terminal.getvalue()
    assert "[/i]" in terminal.getvalue()


def test_trials_are_a_table_and_the_best_one_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    def row(trial: int, state: str, value: float | None, **more: Any) -> dict[str, Any]:
        params = {"train.learning_rate": 1.23456789e-05, "train.schedule": {"name": "step"}}
        plain = {"values": [], "epochs": 3, "seconds": 1.0, "params": params, "same_as": None, "cause": None}
        return {"trial": trial, "state": state, "value": value, **plain, **more}

    rows = [
        row(4, "complete", 25.5, values=[25.0, 26.0], same_as=2),
        row(1, "pruned", 20.0),
        row(0, "failed", None, cause="the loss\x1b[31m became nan"),
        row(3, "running", None),
    ]
    settings = ["segmentation.train.learning_rate=1.23456789e-05", 'segmentation.train.schedule={"name": "step"}']
    results = {"task": "segmentation", "variant": "swin", "metric": "dice", "trials": rows, "importances": {"a": 0.75}}
    print_trials({**results, "best": {**rows[0], "settings": settings}})
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert "over 2 seeds" in lines[0]
    (best,) = (line for line in lines if "25.5000 ± 0.7071" in line)
    assert "1.235e-05" in best
    assert "as trial 2" in best
    assert any("20.0000" in line and "pruned" in line for line in lines)
    assert any("failed: the loss\\x1b[31m became nan" in line for line in lines)
    assert "1 under way in other processes" in text
    assert "a 75%" in text
    (command,) = (line for line in lines if line.startswith("  condswin train"))
    words = shlex.split(command)
    given = [value for option, value in pairwise(words) if option == "--set"]
    config = compose(["demo"], given)
    assert config.segmentation.train.learning_rate == 1.23456789e-05
    assert config.segmentation.train.schedule.name == "step"

    print_trials({**results, "trials": rows[1:], "best": None})
    assert "condswin train" not in capsys.readouterr().out


@pytest.mark.parametrize("page", [True, False])
def test_the_mlflow_that_is_used_is_named_and_the_report_that_is_there(
    page: bool, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(["demo"])
    if page:
        (workdir / "report").mkdir()
        (workdir / "report/report.html").touch()
    assert where_to_look(config) == {
        "report": "report/report.html" if page else None,
        "mlflow": f"sqlite:///{workdir}/mlflow.db",
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert where_to_look(config)["mlflow"] == f"sqlite:///{workdir}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hush@registry:5000")
    assert where_to_look(config)["mlflow"] == "https://***@registry:5000"


def test_a_database_is_opened_by_the_mlflow_beside_this_python(capsys: pytest.CaptureFixture[str]) -> None:
    program = os.path.relpath(Path(sys.executable).with_name("mlflow"))
    for uri, said in (
        ("https://registry:5000", "https://registry:5000"),
        ("sqlite:////a b/mlflow.db", f"{program} ui --backend-store-uri 'sqlite:////a b/mlflow.db'"),
    ):
        print_tables(compose(["demo"]), {}, {"report": "report/report.html", "mlflow": uri})
        assert capsys.readouterr().out == f"report:    report/report.html\nMLflow UI: {said}\n"
