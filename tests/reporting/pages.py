"""A report of made-up scores, for tests that need one page and no training."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from condswin import layout
from condswin.config.names import TaskName
from condswin.config.profiles import compose
from condswin.evaluation.results import read_rows
from condswin.manifest import Manifest
from condswin.networks.costs import Flops
from condswin.networks.saving import ModelSpec
from condswin.reporting.answers import answers
from condswin.reporting.cases import shown_cases
from condswin.reporting.costs import cost_table, share_table, training_table
from condswin.reporting.data import caveat, method_facts
from condswin.reporting.decision import headline
from condswin.reporting.figures import curves_figure, svg
from condswin.reporting.html import TaskReport
from condswin.reporting.networks import Seen
from condswin.reporting.page import (
    case_table,
    forests,
    gain_table,
    group_tables,
    position_table,
    routing_forests,
    rule_table,
    scatters,
    score_tables,
)
from condswin.reporting.scores import Scores
from condswin.reporting.text import case_rows
from condswin.tasks.facts import Facts, Row
from condswin.tasks.loading import load
from condswin.tasks.pictures import CasePanels, Panel

#: Ten cases of nine patients, the first two of one.
PATIENTS = {f"case-{number}": f"patient-{max(number, 1)}" for number in range(10)}
COMPARISON: dict[str, Any] = {"metric": "psnr", "best": "unrolled-swin", "chosen_on": "val"}
#: Gate: a rule that holds, one that is broken, and one on a champion that was there.
DECISION: dict[str, Any] = {
    "version": "2",
    "champion": "1",
    "promoted": False,
    "outcome": "refused",
    "reasons": ["psnr superior to champion: gain -0.5"],
    "latency_ms": 23.8,
    "decided_at": "2026-01-02T03:04:05+00:00",
    "gate": {"patients": 8, "note": "a test's gate", "rules": [{"metric": "psnr", "superior_to": "champion"}]},
    "generated": {"challenger": "all", "test": "all"},
    "rules": [
        {"rule": "psnr superior to zero-filled", "outcome": "holds", "text": "gain +4 over 9 patients; fine",
         "estimate": 4.0, "low": 3.5, "high": 4.5, "needed": 0.0, "patients": 9, "cases": 10},
        {"rule": "psnr superior to champion", "outcome": "broken", "text": "gain -0.5 over 9 patients",
         "estimate": -0.5, "low": -0.9, "high": -0.1, "needed": 0.0, "patients": 9, "cases": 10, "worst": ["case-3"]},
        {"rule": "ssim at least 0.5", "outcome": "not applicable", "text": "nobody asked"},
    ],
}  # fmt: skip


def rows(shift: float, seed: int) -> list[Row]:
    random = np.random.default_rng(seed)
    found: list[Row] = []
    for number, case in enumerate(PATIENTS):
        kind = "<b>T1</b>" if number % 2 else "T2"
        values = {
            "psnr": 25 + shift + random.normal(),
            "ssim": 0.5 + shift / 20,
            "nmse": 0.05,
            "mae": 2e-6 - shift * 1e-7,
        }
        low = {"zero_filled_psnr": 21 + random.normal(), "zero_filled_ssim": 0.4, "zero_filled_nmse": 0.09}
        traits = {"acquisition": kind, "acceleration": 3.5 + number / 10, "nominal_acceleration": 4.0}
        found.append({"case": case, **traits, **values, "mae": 2e-6 - shift * 1e-7, **low, "zero_filled_mae": 3e-6})
    return found


def scores() -> Scores:
    facts = load(Facts, "reconstruction", compose(["demo"]))
    best = rows(3, 0)
    zero = [{"case": row["case"], **{name: row[f"zero_filled_{name}"] for name in facts.metrics}} for row in best]
    methods = {"unrolled-swin": best, "compressed-sensing": rows(1.5, 1), "zero-filled": zero, "swin": rows(2.9, 2)}
    slices = {
        method: {case: [20.0 + place, 30.0, 25.0 - place] for place, case in enumerate(PATIENTS)} for method in methods
    }
    return Scores(facts, PATIENTS, methods, ["zero-filled", "compressed-sensing"], slices=slices)


def panels(case: str, side: int = 24) -> CasePanels:
    random = np.random.default_rng(len(case))
    names = ("target", "zero-filled", "unrolled-swin", "error of zero-filled", "error of unrolled-swin")
    shown = [
        Panel(name, [random.integers(0, 255, (side, side), dtype=np.uint8) for _ in range(3)], name.startswith("error"))
        for name in names
    ]
    whole = [Panel("lesions by unrolled-swin: 1 false", [random.integers(0, 255, (side, side), dtype=np.uint8)])]
    scales = ("a.u.", (0.0, 2.0), (0.0, 40.0))
    return CasePanels([1, 0, 2], 3, shown, *scales, "Errors are absolute.", "% of white", whole, "All slices in one.")


def task_report(found: Scores | None = None, decision: dict[str, Any] | None = DECISION) -> TaskReport:
    found = found or scores()
    every_case = case_rows(found.facts, found.methods[found.best])
    flops = Flops(5 * 10**8, 10**8, 10**7, 10**9)
    router = svg(curves_figure({}, "loss"), "Patches that routers chose")
    seen = {"unrolled-swin": Seen(330168, flops, (96, 96), 12.5, router, {"intensity": [0.1, 0.2, 0.3]})}
    history = [{"epoch": str(epoch), "train/loss": str(1 / (epoch + 1))} for epoch in range(3)]
    seen["swin"] = seen["unrolled-swin"]._replace(milliseconds=5.0, flops=Flops(10**8, 0, 0, 10**8))
    networks = {"unrolled-swin": "unrolled-swin", "swin": "swin"}
    # As if the best had routers.
    pairs = {found.best: "swin"} if "swin" in found.methods else {}
    trained = {"batch_size": 4, "learning_rate": 0.003, "schedule": {"name": "cosine"}}
    provenance = {"parameters": {"seed": 10, "train": trained}}
    specs = {
        name: ModelSpec("reconstruction", name, network, "demo", 3, 2, {}, provenance)
        for name, network in networks.items()
    }
    histories = {name: [{"epoch": f"{epoch}", "val/psnr": f"{20 + epoch % 2}"} for epoch in range(3)] for name in specs}
    return TaskReport(
        name="reconstruction",
        best=found.best,
        title="MRI reconstruction",
        metric="PSNR",
        data="Generated data, of no real patient: made up for a test",
        headline=headline(decision) if decision else "no decision yet",
        outcome=decision["outcome"] if decision else "undecided",
        caveat=caveat("all"),
        answers=answers(found, COMPARISON, decision, "all", seen=seen, networks=networks),
        rules=rule_table(decision, found.facts) if decision else None,
        unused=["nobody asked, so not applied: ssim at least 0.5"] if decision else [],
        least=found.least,
        scores=score_tables(found, decision, label="chosen (on validation cases)", chosen={"unrolled-swin": 27.5}),
        methods=method_facts(found.methods, specs, found.facts),
        terms={"PSNR": "Peak signal-to-noise ratio."},
        forests=forests(found, decision),
        gains=gain_table(found, decision),
        routed=pairs,
        routing=routing_forests(found, decision, pairs),
        groups=[*group_tables(found), *filter(None, [position_table(found, "as they lie")])],
        cases=shown_cases([(row["case"], "worst") for row in every_case], panels, found.best),
        others="condswin view evaluation/reconstruction/unrolled-swin --case NAME",
        every_case=case_table(every_case, found.facts, {case: int(key[8:]) for case, key in PATIENTS.items()}),
        maps={"unrolled-swin": router},
        shares=share_table(seen),
        trends=scatters(found),
        curves=[svg(curves_figure({"swin": history}, "train/loss"), "Loss by epoch")],
        costs=cost_table(seen, {"unrolled-swin": 0.5}, found.references),
        training=training_table(specs, histories, ("psnr", True)),
        about={"sampling": "accelerations [4]"},
        rejected=[{"file": "<script>bad.h5", "reason": "is empty"}],
        facts={"commit": "abc"},
    )


def alone() -> TaskReport:
    """The page of one evaluation."""
    found = scores()
    methods = {method: rows for method, rows in found.methods.items() if method != "swin"}
    found = replace(found, methods=methods)
    comparison = {"metric": "psnr", "best": found.best}
    return replace(
        task_report(found, None),
        headline="evaluated",
        outcome="evaluated",
        answers=answers(found, comparison, None, "none", seen={}, networks={}),
        curves=[],
    )


def write(path: Path) -> Path:
    from condswin.reporting.html import write_report

    write_report(path, [task_report()])
    return path


def missing(html: str, folder: Path, task: TaskName) -> list[str]:
    """Methods of a working folder whose mean over patients a page does not tell; and what the page asks others for."""
    facts = load(Facts, task, compose(["demo"]))
    metric = next(iter(facts.metrics))
    patients = {case.name: case.patient for case in Manifest.read(folder / layout.prepared(task), task).cases}
    found = re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', html)
    for path in (folder / layout.evaluation(task, "")).glob("*/test-cases.csv"):
        mean = Scores(facts, patients, {"": read_rows(path, [metric])}, []).mean("", metric)
        if f">{path.parent.name}<" not in html or f'data-sort="{mean.mean}"' not in html:
            found.append(path.parent.name)
    return found
