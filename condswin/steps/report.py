"""Step: the HTML report of a working folder."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from condswin import layout
from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.errors import BadDataError
from condswin.evaluation.results import METRICS, cases_file, read_rows
from condswin.evaluation.summary import paired_gain
from condswin.files import read_json
from condswin.manifest import Manifest
from condswin.networks.saving import read_spec
from condswin.outputs import check_file
from condswin.reporting.cases import shown_cases
from condswin.reporting.decision import headline, remarks
from condswin.reporting.figures import curves_figure, read_csv, svg
from condswin.reporting.html import TaskReport, write_report
from condswin.reporting.networks import look_into
from condswin.reporting.page import (
    WORST,
    answers,
    case_table,
    cost_table,
    data_line,
    forests,
    gain_table,
    group_tables,
    rule_table,
    scatters,
    score_tables,
    share_table,
)
from condswin.reporting.scores import Scores
from condswin.reporting.text import case_rows
from condswin.tasks.facts import Facts, Row
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures


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
    """A report without what names cases or shows them."""
    rules = task.rules and task.rules.without(WORST)
    answers = {question: said for question, said in task.answers.items() if question != WORST}
    return replace(task, cases=[], every_case=None, maps={}, rejected=[], rules=rules, answers=answers)


def _task_report(config: Config, name: TaskName, comparison: dict[str, Any]) -> TaskReport:
    facts, prepared, promotion = load(Facts, name, config), layout.prepared(name), comparison["promotion"]
    metric, best, variants = comparison["metric"], comparison["best"], list(comparison["variants"])
    manifest = Manifest.read(prepared, name)
    patients = {case.name: case.patient for case in manifest.cases if case.split == "test"}
    scores = Scores(facts, patients, _rows(facts, comparison), [*facts.baselines, *comparison["reference_methods"]])
    methods = [best, *comparison["reference_methods"], *(variant for variant in variants if variant != best)]
    predictions = {method: layout.evaluation(name, method) / "predictions" / "test" for method in methods}
    pictures = load(Pictures, name, config)
    every_case = case_rows(facts, read_csv(layout.evaluation(name, best) / cases_file("test")))
    seen = {variant: look_into(config, name, layout.model(name, variant), prepared) for variant in variants}
    histories = {variant: read_csv(layout.model(name, variant) / layout.HISTORY) for variant in variants}
    spec = read_spec(layout.model(name, best))
    code: dict[str, Any] = spec.provenance.get("code", {})
    return TaskReport(
        name=name,
        best=best,
        metric=metric,
        data=data_line(manifest, _source(config.task(name).source), code),
        headline=headline(promotion) if promotion else "no decision yet",
        outcome=promotion["outcome"] if promotion else "undecided",
        answers=answers(scores, comparison, promotion),
        rules=rule_table(promotion) if promotion else None,
        # The table of rules says of each why it was not applied.
        remarks=[said for said in remarks(promotion) if "so not applied" not in said] if promotion else [],
        scores=score_tables(scores, promotion),
        forests=forests(scores, promotion),
        gains=gain_table(scores, promotion),
        groups=group_tables(scores),
        cases=shown_cases(
            [(row["case"], _about(row, facts, metric)) for row in every_case],
            lambda case: pictures.panels(prepared / "test", predictions, case),
            best,
        ),
        every_case=case_table(every_case, facts),
        maps={variant: network.maps for variant, network in seen.items() if network.maps is not None},
        shares=share_table(seen),
        trends=scatters(scores),
        curves=[
            svg(curves_figure(histories, column), f"{column} by epoch of the training of {', '.join(variants)}.")
            for column in ("train/loss", f"val/{facts.monitor[0]}")
        ],
        costs=cost_table(seen, promotion, best),
        rejected=manifest.rejected,
        facts={
            "data (SHA-256 of the prepared cases)": comparison["data_sha256"],
            "parameters (SHA-256)": comparison["params_sha256"],
            "weights of the best network (SHA-256)": comparison["weights_sha256"],
            "best network": f"{spec.variant}: {spec.network}, preset {spec.preset}, {dict(spec.overrides)}",
            "trained by commit": f"{code.get('git_commit', 'unknown')}, uncommitted changes: "
            f"{code.get('git_dirty', 'unknown')}",
            "libraries": ", ".join(f"{library} {version}" for library, version in code.get("libraries", {}).items()),
            **({"decided at": promotion["decided_at"]} if promotion and "decided_at" in promotion else {}),
        },
    )


def _rows(facts: Facts, comparison: dict[str, Any]) -> dict[str, list[Row]]:
    """Rows of the test cases by method, the best variant first; reference methods from what has them."""
    best, numbers = comparison["best"], {*facts.metrics, *facts.further, *facts.details}
    numbers |= {trait for trait, kind in facts.traits.items() if kind is float}
    numbers |= {f"{prefix}{metric}" for prefix in facts.baselines.values() for metric in facts.metrics}

    def read(method: str) -> list[Row]:
        return read_rows(layout.evaluation(facts.name, method) / cases_file("test"), numbers)

    rows = {best: read(best), **{method: read(method) for method in comparison["reference_methods"]}}
    for baseline, prefix in facts.baselines.items():
        rows[baseline] = [
            {"case": row["case"], **{metric: row.get(f"{prefix}{metric}", "nan") for metric in facts.metrics}}
            for row in rows[best]
        ]
    return rows | {variant: read(variant) for variant in comparison["variants"] if variant != best}


def _about(row: Mapping[str, str], facts: Facts, metric: str) -> str:
    """What is known of a case, for its caption."""
    known = {name: row[name] for name in (*facts.traits, metric) if name in row}
    return ", ".join(f"{name} {text} {facts.units.get(name, '')}".strip() for name, text in known.items())


def _source(source: str) -> str:
    """Where data came from, without the folders of this machine."""
    return Path(source).name if Path(source).is_absolute() else source
