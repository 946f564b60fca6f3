"""Commands: scores, comparisons and what shows them."""

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from condswin import layout
from condswin.cli.manners import answer, commands
from condswin.cli.options import (
    DEFAULT_PARAMS,
    OptionalPath,
    Overwrite,
    Params,
    Prepared,
    Settings,
    Task,
    local,
    read,
    read_or_demo,
    require,
)
from condswin.config.reading import load_config
from condswin.files import MANIFEST
from condswin.outputs import check_file, check_output
from condswin.plain import plain

app = typer.Typer()
command = commands(app, "Evaluation")


@command()
def evaluate(
    task: Task,
    variant: Annotated[str | None, typer.Argument(help="Evaluate this trained variant.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder. Default: of the variant.")] = None,
    prepared: Prepared = None,
    targets: Annotated[Path | None, typer.Option(help="Instead of a model: folder of targets ...")] = None,
    predictions: Annotated[Path | None, typer.Option(help="... and folder of predictions of the same names.")] = None,
    out: OptionalPath = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Score a trained variant, or any folder of predictions.

    Examples:

    condswin evaluate reconstruction swin

    condswin evaluate segmentation --targets labels/ --predictions mine/ --out scores/
    """
    if (targets is None) != (predictions is None):
        raise typer.BadParameter("give --targets and --predictions together")
    if targets is not None and predictions is not None:
        if out is not None:
            check_output(out, step="score", inputs=[targets, predictions], overwrite=overwrite)
        require(targets, predictions)
        from condswin.reporting.text import print_summary
        from condswin.steps.score import score_folders

        config = read_or_demo(task, params, settings)
        scores = score_folders(config, task, targets=targets, predictions=predictions, out=out, overwrite=overwrite)
        answer({"out": out, "test": scores}, lambda: print_summary(scores))
        return
    if variant is None and model is None:
        raise typer.BadParameter("give a variant, --model, or --targets with --predictions")
    config = read(task, params, settings)
    if model is None:
        config.task(task).variant(cast(str, variant))
    folder = model or layout.model(task, cast(str, variant))
    target = out or (layout.evaluation(task, variant) if variant else Path("evaluation", task, folder.name))
    data = prepared or layout.prepared(task)
    check_output(target, step="evaluate", inputs=[folder, data], overwrite=overwrite)
    require(folder, data / MANIFEST)
    from condswin.reporting.text import print_summary
    from condswin.steps.evaluate import evaluate as step

    result = step(config, task, model=folder, prepared=data, out=target, overwrite=overwrite)
    answer({"out": target, **result}, lambda: print_summary(result["test"]))


@command()
def baseline(
    task: Task,
    prepared: Prepared = None,
    out: OptionalPath = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Predict by the reference method, tuned on validation cases, and score it like a network.

    Compressed sensing (total variation) for reconstruction; thresholds and an active contour for segmentation.

    Example: condswin baseline reconstruction
    """
    from condswin.tasks.facts import Facts
    from condswin.tasks.loading import load

    config = read(task, params, settings)
    target = out or layout.evaluation(task, load(Facts, task, config).reference_method or "baseline")
    data = prepared or layout.prepared(task)
    check_output(target, step="baseline", inputs=[data], overwrite=overwrite)
    require(data / MANIFEST)
    from condswin.reporting.text import print_summary
    from condswin.steps.baseline import baseline as step

    result = step(config, task, prepared=data, out=target, overwrite=overwrite)

    def show() -> None:
        print(f"chosen on validation cases: {json.dumps(result['settings'])}")
        print_summary(result["test"])

    answer({"out": target, **result}, show)


@command()
def compare(
    task: Task,
    evaluations: Annotated[Path | None, typer.Option(help="Folder with one evaluation per variant.")] = None,
    out: OptionalPath = None,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Set the evaluated variants beside each other and choose the best on validation cases.

    Example: condswin compare segmentation
    """
    config = read(task, params, settings)
    target = out or layout.comparison(task)
    check_file(target)
    folders = {
        variant: evaluations / variant if evaluations else layout.evaluation(task, variant)
        for variant in config.task(task).variants
    }
    require(*folders.values())
    from condswin.evaluation.results import METRICS
    from condswin.files import read_json
    from condswin.steps.compare import compare as step

    results = {variant: read_json(folder / METRICS) for variant, folder in folders.items()}
    result = step(config, task, results=results, out=target)
    said = f"{target}: best on {result['chosen_on']} by {result['metric']} is {result['best']}"
    answer({"out": target, **result}, said)


@command()
def report(
    evaluation: Annotated[
        Path | None, typer.Argument(help="Folder of an evaluation: a page on it alone, not on the comparison.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Network of the evaluation. Default: its variant's.")] = None,
    prepared: Prepared = None,
    out: OptionalPath = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for the tables that `dvc plots` draws.")] = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Write the HTML report of the last pipeline run, or of one evaluation.

    Examples:

    condswin report

    condswin report evaluation/reconstruction/swin
    """
    config = load_config(params, settings or [])
    if evaluation is None:
        if model or prepared:
            raise typer.BadParameter("--model and --prepared are for the report of one evaluation; give its folder")
        target = out or layout.report()
        check_file(target, overwrite=overwrite)
        layout.compared(config.present)
        from condswin.registry.linked import send_report, training_hours
        from condswin.steps.report import report as step

        def publish(task: str, page: Path) -> None:
            send_report(config, layout.registered(task), page)

        hours = training_hours(config)
        page = step(config, out=target, plots=plots, overwrite=overwrite, publish=publish, hours=hours)
        answer({"out": page}, str(page))
        return
    if plots:
        raise typer.BadParameter("--plots is for the report of a comparison")
    if out:
        check_file(out, overwrite=overwrite)
    require(evaluation)
    from condswin.registry.linked import send_page, training_hours
    from condswin.steps.report import read_evaluation, report_evaluation

    result = read_evaluation(evaluation)
    task, variant = result["task"], result["variant"]
    network = model or layout.model(task, variant)
    target = out or layout.page(task, variant)
    page = report_evaluation(
        config,
        evaluation,
        out=target,
        # A reference method has none.
        model=network if result.get("weights_sha256") else None,
        prepared=prepared or layout.prepared(task),
        overwrite=overwrite,
        publish=lambda _, page: send_page(config, result, page),
        hours=training_hours(config),
    )
    answer({"out": page}, str(page))


@command()
def summary(params: Params = DEFAULT_PARAMS, settings: Settings = None) -> None:
    """Print the variants x metrics table of the last pipeline run and where to look further.

    Example: condswin summary
    """
    config = load_config(params, settings or [])
    layout.compared(config.present)
    from condswin.reporting.text import print_tables, where_to_look
    from condswin.steps.report import read_comparisons

    found, further = read_comparisons(config), where_to_look(config)
    answer({"tasks": found, **further}, lambda: print_tables(config, found, further))


@command()
def gallery(
    inputs: Annotated[list[Path], typer.Argument(help="fastMRI files, undersampled or not, with or without target.")],
    out: Annotated[Path, typer.Option(help="Folder for the table and the pictures.")],
    model: Annotated[list[str] | None, typer.Option(help="A network to add; may be given several times.")] = None,
    weight: Annotated[
        float | None, typer.Option(help="Of the total variation. Default: what condswin baseline chose.")
    ] = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Reconstruct files by zero filling, compressed sensing and any networks: a table and pictures.

    Example: condswin gallery scans/*.h5 --model models/reconstruction/swin --out pictures/
    """
    config = read_or_demo("reconstruction", params, settings)
    check_output(out, step="gallery", inputs=inputs, overwrite=overwrite)
    require(*inputs, *local(model or []))
    from condswin.steps.gallery import gallery as step

    paths = step(config, inputs, models=model or [], weight=weight, out=out, overwrite=overwrite)
    answer({"outputs": list(map(str, paths))}, "\n".join(map(plain, paths)))
