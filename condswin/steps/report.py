"""Step: the HTML report of a working folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from condswin import layout
from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.errors import BadDataError
from condswin.evaluation.results import METRICS, cases_file
from condswin.evaluation.summary import paired_gain
from condswin.files import read_json
from condswin.manifest import Manifest
from condswin.networks.saving import read_spec
from condswin.outputs import check_file
from condswin.reporting.decision import headline, remarks
from condswin.reporting.figures import curves_figure, data_uri, png, read_csv, spread_figure
from condswin.reporting.html import TaskReport, write_report
from condswin.reporting.text import case_rows, table_rows
from condswin.tasks.facts import Facts
from condswin.tasks.loading import load


def read_comparisons(config: Config) -> dict[TaskName, dict[str, Any]]:
    """The working folder's comparisons by task.

    With `promotion`, the gate's decision or None; `reference_methods`, scores on the same data by method; and `gains`:
    by method and metric, a summary of the best variant's differences from it over the test cases.

    Args:
        config: Parameters; a task without a section is left out.

    Raises:
        BadDataError: There is none yet.
    """
    found = {name: read_json(layout.comparison(name)) for name in config.present if layout.comparison(name).is_file()}
    if not found:
        raise BadDataError(f"{layout.comparison(config.present[0]).parent}: no comparison yet; run `make repro`")
    for name, comparison in found.items():
        facts = load(Facts, name, config)
        method = facts.reference_method
        made = method and (layout.evaluation(name, method) / METRICS).is_file()
        scores = {method: read_json(layout.evaluation(name, method) / METRICS)} if made else {}
        comparison["reference_methods"] = {
            method: score for method, score in scores.items() if score["data_sha256"] == comparison["data_sha256"]
        }
        best = read_csv(layout.evaluation(name, comparison["best"]) / cases_file("test"))
        references = {
            method: read_csv(layout.evaluation(name, method) / cases_file("test"))
            for method in comparison["reference_methods"]
        }
        comparison["gains"] = {
            method: {metric: paired_gain(best, rows, metric) for metric in facts.metrics}
            for method, rows in references.items()
        }
        promotion = layout.promoted(name)
        comparison["promotion"] = read_json(promotion) if promotion.is_file() else None
    return found


def report(
    config: Config,
    *,
    out: Path,
    overwrite: bool = False,
    publish: Callable[[TaskName, Path], None] = lambda task, page: None,
) -> Path:
    """Writes one HTML file from what the other steps left in the working folder.

    Args:
        config: Parameters.
        out: The file.
        overwrite: Replace a file that is not ours.
        publish: Called with each task and a page on it that names no case.

    Raises:
        BadDataError: Nothing was compared yet.
        OutputError: The file is there and not ours.
    """
    check_file(out, overwrite=overwrite)
    tasks = {name: _task_report(config, name, comparison) for name, comparison in read_comparisons(config).items()}
    write_report(out, list(tasks.values()))
    with TemporaryDirectory(prefix="condswin-report-") as temporary:
        for name, task in tasks.items():
            page = Path(temporary, name, "report.html")
            write_report(page, [_nameless(task)])
            publish(name, page)
    return out


def _nameless(task: TaskReport) -> TaskReport:
    """A report without what names cases: tables of them, their pictures, and the worst of each rule."""
    promotion = task.promotion
    if promotion:
        rules = [{key: value for key, value in rule.items() if key != "worst"} for rule in promotion.get("rules", [])]
        promotion = {**promotion, **({"rules": rules} if "rules" in promotion else {})}
    return replace(task, cases=[], rejected=[], pictures={}, promotion=promotion)


def _task_report(config: Config, name: TaskName, comparison: dict[str, Any]) -> TaskReport:
    facts = load(Facts, name, config)
    metric, best = comparison["metric"], comparison["best"]
    manifest = Manifest.read(layout.prepared(name), name)
    promotion = comparison["promotion"]
    spec = read_spec(layout.model(name, best))
    histories = {variant: read_csv(layout.model(name, variant) / layout.HISTORY) for variant in comparison["variants"]}
    pictures = sorted((layout.evaluation(name, best) / "pictures").glob("*.png"))
    return TaskReport(
        name=name,
        table=table_rows(facts, comparison),
        best=best,
        metric=metric,
        chosen_on=comparison["chosen_on"],
        splits={str(split): count for split, count in manifest.counts().items()},
        rejected=manifest.rejected,
        figures={
            "Each line is one test case.": data_uri(png(spread_figure(metric, _columns(facts, metric, comparison)))),
            "Training.": data_uri(png(curves_figure(histories, f"val/{facts.monitor[0]}"))),
        },
        cases=case_rows(facts, read_csv(layout.evaluation(name, best) / cases_file("test"))),
        pictures={f"{best}, {path.stem} test case by {metric}.": data_uri(path.read_bytes()) for path in pictures},
        promotion=promotion and {**promotion, "headline": headline(promotion), "remarks": remarks(promotion)},
        facts={
            "data (SHA-256 of the prepared cases)": comparison["data_sha256"],
            "parameters (SHA-256)": comparison["params_sha256"],
            "best network": f"{spec.variant}: {spec.network}, preset {spec.preset}, {dict(spec.overrides)}",
        },
    )


def _columns(facts: Facts, metric: str, comparison: dict[str, Any]) -> dict[str, list[float]]:
    """The metric's values per row of the table, cases in one order, reference methods first."""
    columns: dict[str, list[float]] = {}
    for variant in comparison["variants"]:
        rows = sorted(
            read_csv(layout.evaluation(facts.name, variant) / cases_file("test")), key=lambda row: row["case"]
        )
        for baseline, prefix in facts.baselines.items():
            columns.setdefault(baseline, [float(row[f"{prefix}{metric}"]) for row in rows])
        columns[variant] = [float(row[metric]) for row in rows]
    return columns
