"""Step: the HTML report of a working folder, or of one evaluation, and the tables that `dvc plots` draws."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from condswin import layout
from condswin.config.names import TASKS, TaskName
from condswin.config.root import Config
from condswin.errors import BadDataError, BadFileError
from condswin.evaluation.results import METRICS, cases_file, read_rows
from condswin.evaluation.summary import paired_gain
from condswin.files import read_json
from condswin.manifest import Manifest
from condswin.networks.saving import read_spec
from condswin.outputs import check_file, open_output
from condswin.reporting.answers import answers
from condswin.reporting.cases import caption, shown_cases
from condswin.reporting.costs import cost_table, share_table, training_table, unfinished
from condswin.reporting.data import (
    caveat,
    data_facts,
    data_line,
    method_facts,
    patient_numbers,
    provenance,
    source_name,
)
from condswin.reporting.decision import headline, remarks
from condswin.reporting.figures import curves_figure, read_csv, svg
from condswin.reporting.html import TaskReport, write_report
from condswin.reporting.networks import look_into
from condswin.reporting.page import (
    WORST,
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
from condswin.reporting.plots import curve_rows, gain_rows, score_rows, write_table
from condswin.reporting.scores import Scores, routed
from condswin.reporting.text import case_rows
from condswin.tasks.facts import Facts, Row
from condswin.tasks.judging import Judging
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures

#: Tells the hours of the training that left an evaluated network, as its `metrics.json` names it; None if unknown.
Hours = Callable[[Mapping[str, Any]], float | None]
#: What the best variant is called, by the cases that it was chosen on.
_LABELS = {"val": "chosen (on validation cases)", "test": "chosen (on test cases)", "": "evaluated"}


@dataclass(frozen=True)
class _Places:
    """Where a task's report finds what it shows.

    Attributes:
        task: Its name.
        prepared: The data.
        evaluations: By method, the best first, then reference methods.
        models: By variant.
    """

    task: TaskName
    prepared: Path
    evaluations: Mapping[str, Path]
    models: Mapping[str, Path]

    @cached_property
    def manifest(self) -> Manifest:
        """Of the data."""
        return Manifest.read(self.prepared, self.task)

    @cached_property
    def histories(self) -> dict[str, list[dict[str, str]]]:
        """Of the models' trainings, by variant."""
        return {variant: read_csv(model / layout.HISTORY) for variant, model in self.models.items()}


def read_comparisons(config: Config) -> dict[TaskName, dict[str, Any]]:
    """The working folder's comparisons by task.

    With `registered`, the version that the best variant became, or nothing; `promotion`, the gate's decision on it or
    None; `reference_methods`, scores on the same data by method; and `gains`:
    by method and metric, a summary of the best variant's differences from it over the test cases.

    Args:
        config: Parameters; a task without a section is left out.

    Raises:
        BadDataError: There is none yet.
    """
    found = {name: read_json(layout.comparison(name)) for name in layout.compared(config.present)}
    for name, comparison in found.items():
        facts = load(Facts, name, config)
        references = comparison["reference_methods"] = _references(facts, comparison["data_sha256"])
        rows = {method: _test_cases(facts, method) for method in (comparison["best"], *references)}
        comparison["gains"] = {
            method: {metric: paired_gain(rows[comparison["best"]], rows[method], metric) for metric in facts.metrics}
            for method in references
        }
        registered, promotion = (
            read_json(path) if path.is_file() else {} for path in (layout.registered(name), layout.promoted(name))
        )
        compared = (comparison["best"], comparison["weights_sha256"])
        ours = (registered.get("variant"), registered.get("weights_sha256")) == compared
        comparison["registered"] = registered.get("uri", "") if ours else ""
        decided = ours and promotion.get("version") == registered["version"]
        comparison["promotion"] = promotion if decided else None
    return found


def report(
    config: Config,
    *,
    out: Path,
    plots: Path | None = None,
    overwrite: bool = False,
    image: str = "",
    publish: Callable[[TaskName, Path], None] = lambda task, page: None,
    hours: Hours = lambda result: None,
) -> Path:
    """Writes one HTML file from what the other steps left in the working folder.

    Args:
        config: Parameters.
        out: The file.
        plots: Folder for tables of learning curves, scores and gains, a file for each task; None for none.
        overwrite: Replace a file that is not ours.
        image: Container image that networks were trained in; empty outside of containers.
        publish: Called with each task and a page on it that names no case.
        hours: Of trainings.

    Raises:
        BadDataError: Nothing was compared yet, or data, networks and evaluations do not belong together.
        OutputError: The file is there and not ours.
    """
    check_file(out, overwrite=overwrite)
    tables = open_output(plots, step="report", inputs=[]) if plots else None
    pages, files = {}, {}
    for name, comparison in read_comparisons(config).items():
        variants = [comparison["best"], *(each for each in comparison["variants"] if each != comparison["best"])]
        methods = [variants[0], *comparison["reference_methods"], *variants[1:]]
        places = _Places(
            name,
            layout.prepared(name),
            {method: layout.evaluation(name, method) for method in methods},
            {variant: layout.model(name, variant) for variant in comparison["variants"]},
        )
        for variant, model in places.models.items():
            evaluation = places.evaluations[variant]
            result = read_evaluation(evaluation)
            told = comparison if variant == comparison["best"] else result
            if any(result.get(key, "") != told.get(key, "") for key in ("data_sha256", "weights_sha256")):
                raise BadDataError(f"{evaluation}: not what {layout.comparison(name)} compared; run condswin compare")
            _require_same(places, evaluation, result, model if result.get("weights_sha256") else None)
        scores = _scores(config, places, comparison["promotion"])
        pages[name] = _task_report(config, comparison, places, scores, image, hours)
        files[f"curves/{name}.csv"] = curve_rows(places.histories, scores.facts)
        files[f"scores/{name}.csv"] = score_rows(scores)
        files[f"gains/{name}.csv"] = gain_rows(scores)
    write_report(out, list(pages.values()))
    if tables:
        tables.claim(files)
        for file, rows in files.items():
            write_table(tables.folder / file, rows)
        tables.finish(files)
    _publish(pages, publish)
    return out


def report_evaluation(
    config: Config,
    evaluation: Path,
    *,
    out: Path,
    model: Path | None,
    prepared: Path,
    overwrite: bool = False,
    image: str = "",
    publish: Callable[[TaskName, Path], None] = lambda task, page: None,
    hours: Hours = lambda result: None,
) -> Path:
    """Writes one HTML file on the evaluation of one network or reference method.

    The working folder's evaluation of the task's reference method, if it is of the same data, stands beside it.

    Args:
        config: Parameters.
        evaluation: Folder that `evaluate` or `baseline` wrote.
        out: The file.
        model: Folder of the network; None for a reference method, which has none.
        prepared: The data that it was evaluated on.
        overwrite: Replace a file that is not ours.
        image: As in `report`.
        publish: As in `report`.
        hours: As in `report`.

    Raises:
        BadFileError: The folder is no evaluation.
        BadDataError: The data is not what was evaluated on, or the model not what was evaluated.
        OutputError: The file is there and not ours.
    """
    check_file(out, inputs=[evaluation, prepared, *([model] if model else [])], overwrite=overwrite)
    result = read_evaluation(evaluation)
    name, variant = result["task"], result["variant"]
    facts = load(Facts, name, config)
    references = {} if variant == facts.reference_method else _references(facts, result["data_sha256"])
    comparison = {
        "metric": next(iter(facts.metrics)),
        "best": variant,
        "variants": {variant: result},
        "reference_methods": references,
        "promotion": None,
        **{key: result.get(key, "") for key in ("data_sha256", "params_sha256", "weights_sha256")},
    }
    beside = {method: layout.evaluation(name, method) for method in references}
    places = _Places(name, prepared, {variant: evaluation, **beside}, {variant: model} if model else {})
    _require_same(places, evaluation, result, model, data="give --prepared", network="give --model")
    page = _task_report(config, comparison, places, _scores(config, places), image, hours)
    write_report(out, [page])
    _publish({name: page}, publish)
    return out


def _require_same(
    places: _Places,
    evaluation: Path,
    result: Mapping[str, Any],
    model: Path | None,
    *,
    data: str = "run condswin evaluate again",
    network: str = "run condswin evaluate again",
) -> None:
    """Refuses data or a network that an evaluation is not of; `data` and `network` say the mend."""
    if places.manifest.fingerprint() != result["data_sha256"]:
        raise BadDataError(f"{places.prepared}: not the data that {evaluation} is of; {data}")
    if model and read_spec(model).weights_sha256 != result["weights_sha256"]:
        raise BadDataError(f"{model}: not the network that {evaluation} is of; {network}")


def read_evaluation(folder: Path) -> dict[str, Any]:
    """What the `metrics.json` of an evaluation holds.

    Raises:
        BadFileError: The folder is no evaluation of prepared cases.
    """
    result = read_json(folder / METRICS)
    if not isinstance(result, dict) or result.get("task") not in TASKS or not isinstance(result.get("variant"), str):
        raise BadFileError(folder / METRICS, "not of an evaluation of prepared cases; `condswin evaluate TASK VARIANT`")
    return result


def _references(facts: Facts, data_sha256: str) -> dict[str, Any]:
    """Scores of the task's reference method in the working folder, if they are of this data."""
    method = facts.reference_method
    path = layout.evaluation(facts.name, method) / METRICS
    if not method or not path.is_file():
        return {}
    scores = read_json(path)
    return {method: scores} if scores["data_sha256"] == data_sha256 else {}


def _test_cases(facts: Facts, method: str) -> list[Row]:
    """By a method of the working folder; none if it has no table of them."""
    path = layout.evaluation(facts.name, method) / cases_file("test")
    return read_rows(path, facts.metrics) if path.is_file() else []


def _publish(pages: Mapping[TaskName, TaskReport], publish: Callable[[TaskName, Path], None]) -> None:
    with TemporaryDirectory(prefix="condswin-report-") as temporary:
        for name, task in pages.items():
            page = Path(temporary, name, "report.html")
            write_report(page, [_nameless(task)])
            publish(name, page)


def _nameless(task: TaskReport) -> TaskReport:
    """A report without what names cases or shows them."""
    rules = task.rules and task.rules.without(WORST)
    answers = {question: said for question, said in task.answers.items() if question != WORST}
    return replace(task, cases=[], every_case=None, maps={}, rejected=[], rules=rules, answers=answers)


def _scores(config: Config, places: _Places, promotion: Mapping[str, Any] | None = None) -> Scores:
    """The test cases by every method."""
    name = places.task
    least = (promotion or {}).get("gate", {}).get("patients")
    facts, judging = load(Facts, name, config), load(Judging, name, config)
    numbers = {*facts.metrics, *facts.further, *facts.details}
    numbers |= {trait for trait, kind in facts.traits.items() if kind is float}
    numbers |= {f"{prefix}{metric}" for prefix in facts.baselines.values() for metric in facts.metrics}
    read = {method: read_rows(folder / cases_file("test"), numbers) for method, folder in places.evaluations.items()}
    best, *others = read
    qualities = judging.qualities(places.prepared / "test")
    rows: dict[str, list[Row]] = {
        best: [
            {**row, **{kind: of[str(row["case"])] for kind, of in qualities.items() if row["case"] in of}}
            for row in read[best]
        ]
    }
    references = [method for method in others if method == facts.reference_method]
    rows |= {method: read[method] for method in references}
    for baseline, prefix in facts.baselines.items():
        columns = {metric: f"{prefix}{metric}" for metric in facts.metrics}
        rows[baseline] = [
            {"case": row["case"], **{metric: row.get(column, "nan") for metric, column in columns.items()}}
            for row in read[best]
        ]
    patients = {case.name: case.patient for case in places.manifest.cases if case.split == "test"}
    slices = {
        method: judging.by_slice(places.prepared / "test", folder / "predictions" / "test")
        for method, folder in places.evaluations.items()
    }
    return Scores(
        facts,
        patients,
        rows | {method: read[method] for method in others},
        [*references, *facts.baselines],
        qualities=tuple(qualities),
        slices=slices,
        least=config.task(name).gate.patients if least is None else least,
    )


def _task_report(
    config: Config, comparison: dict[str, Any], places: _Places, scores: Scores, image: str, hours: Hours
) -> TaskReport:
    name, prepared, manifest, histories = places.task, places.prepared, places.manifest, places.histories
    facts, promotion, pictures = scores.facts, comparison["promotion"], load(Pictures, name, config)
    metric, best = comparison["metric"], comparison["best"]
    predictions = {method: folder / "predictions" / "test" for method, folder in places.evaluations.items()}
    every_case = case_rows(facts, scores.methods[best])
    seen = {variant: look_into(config, name, model, prepared) for variant, model in places.models.items()}
    times = {variant: hours(read_json(places.evaluations[variant] / METRICS)) for variant in places.models}
    trained = {variant: rows for variant, rows in histories.items() if rows}
    specs = {variant: read_spec(model) for variant, model in places.models.items()}
    networks = {variant: each.network for variant, each in specs.items()}
    spec, generated = specs.get(best), manifest.generated("test")
    decided = (promotion or {}).get("decided_at", "")
    source, judging = config.task(name).source, load(Judging, name, config)
    validated = comparison["variants"] if comparison.get("chosen_on") == "val" else {}
    chosen = {variant: result["val"][metric]["mean"] for variant, result in validated.items()}
    ended = unfinished(histories, facts.monitor)
    return TaskReport(
        name=name,
        best=best,
        title=f"{facts.modality} {name}".strip(),
        metric=facts.called(metric),
        data=data_line(
            manifest, facts, source_name(source), spec.provenance if spec else {}, decided=decided, image=image
        ),
        headline=headline(promotion) if promotion else "no decision yet" if "chosen_on" in comparison else "evaluated",
        outcome=promotion["outcome"] if promotion else "undecided" if "chosen_on" in comparison else "evaluated",
        caveat=caveat(generated),
        answers=answers(scores, comparison, promotion, generated, seen, networks, ended),
        rules=rule_table(promotion, facts) if promotion else None,
        unused=[said for said in remarks(promotion) if "so not applied" in said] if promotion else [],
        least=scores.least,
        scores=score_tables(scores, promotion, label=_LABELS.get(comparison.get("chosen_on", ""), ""), chosen=chosen),
        methods=method_facts(scores.methods, specs, facts),
        terms={facts.called(column): said for column in facts.terms if (said := facts.meaning(column))},
        forests=forests(scores, promotion),
        gains=gain_table(scores, promotion),
        routed=routed(networks),
        routing=routing_forests(scores, promotion, routed(networks)),
        groups=[*group_tables(scores), *filter(None, [position_table(scores, judging.slice_order)])],
        cases=shown_cases(
            [(row["case"], caption(row, facts, metric)) for row in every_case],
            lambda case: pictures.panels(prepared / "test", predictions, case),
            best,
        ),
        others=f"condswin view {places.evaluations[best]} --case NAME",
        every_case=case_table(every_case, facts, patient_numbers(scores.patients)),
        maps={variant: network.maps for variant, network in seen.items() if network.maps is not None},
        shares=share_table(seen),
        trends=scatters(scores),
        curves=[
            svg(curves_figure(trained, column), f"{column} by epoch of the training of {', '.join(trained)}.")
            for column in ("train/loss", f"val/{facts.monitor[0]}")
            if trained
        ],
        costs=cost_table(seen, times, scores.references),
        training=training_table(specs, histories, facts.monitor),
        about=data_facts(manifest, facts, source, judging.describe(manifest)),
        rejected=manifest.rejected,
        facts=provenance(comparison, spec, decided, image),
    )
