"""Commands: from the best network to the champion, and back."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from condswin import layout
from condswin.cli.manners import answer, commands
from condswin.cli.options import (
    DEFAULT_PARAMS,
    OptionalPath,
    Params,
    Prepared,
    Registered,
    Settings,
    Task,
    read,
    read_or_demo,
    require,
)
from condswin.outputs import check_file
from condswin.plain import plain

app = typer.Typer()
command = commands(app, "Registry")

#: How `promote --exit-code` ends where nothing was promoted.
STATUS = {"refused": 4, "undecided": 5, "held": 6}


@command()
def register(
    task: Task,
    comparison: OptionalPath = None,
    model: Annotated[Path | None, typer.Option(help="Model folder. Default: of the best variant.")] = None,
    out: OptionalPath = None,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Register the best variant in MLflow as a version with the alias "challenger"; running it again changes nothing.

    Example: condswin register reconstruction
    """
    config = read(task, params, settings)
    target, compared = out or layout.registered(task), comparison or layout.comparison(task)
    check_file(target)
    require(compared)
    from condswin.files import read_json
    from condswin.steps.register import Evidence
    from condswin.steps.register import register as step

    places = (layout.evaluations(task), layout.prepared(task), layout.ingested(task), layout.card(task))
    record = step(
        config,
        task,
        comparison=compared,
        model=model or layout.model(task, read_json(compared)["best"]),
        out=target,
        evidence=Evidence(*places),
    )
    known = ""
    if record["already_registered"]:
        known = ", registered already, challenger again" if record["moved"] else ", registered already: nothing to do"
    answer(record, f"{record['name']} version {record['version']}{known}")


@command()
def promote(
    task: Task,
    registered: OptionalPath = None,
    prepared: Prepared = None,
    out: OptionalPath = None,
    hold: Annotated[bool, typer.Option("--hold", help="Leave one that passes for `condswin approve`.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with status 4 if it is refused, 5 if undecided, 6 if held.")
    ] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Make the challenger champion if it loads cleanly and passes the gate against today's champion.

    The answer is promoted, refused, or undecided: too few patients, or an interval on both sides of what is needed.

    Example: condswin promote reconstruction
    """
    config = read(task, params, settings)
    target, challenger = out or layout.promoted(task), registered or layout.registered(task)
    check_file(target)
    require(challenger)
    from condswin.reporting.decision import decision_lines, headline
    from condswin.steps.promote import promote as step

    champion, known, record = step(
        config,
        task,
        registered=challenger,
        prepared=prepared or layout.prepared(task),
        out=target,
        baseline=layout.evaluation(task, config.task(task).reference_method),
        hold=hold,
    )
    said = f"{'nothing to do, decided already: ' if known else ''}{headline(record)}"
    if known and champion:
        said = f"nothing to do, version {record['version']} is champion already"
    answer({"out": target, **record}, "\n".join([f"{target}: {said}", *map(plain, decision_lines(record))]))
    if exit_code and not champion:
        sys.exit(STATUS[record["outcome"]])


By = Annotated[str, typer.Option(help="Who decides.")]


Why = Annotated[str, typer.Option(help="The reason, which is kept.")]


Version = Annotated[int, typer.Argument(min=1, help="Of the registered model.")]


@command()
def approve(
    task: Task,
    version: Version,
    by: By,
    why: Why,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Make a challenger champion that passed the gate and was held.

    Example: condswin approve reconstruction 3 --by "J. Doe" --why "read twenty cases"
    """
    config = read(task, params, settings)
    from condswin.steps.approve import approve as step

    _say(step(config, task, str(version), by=by, why=why))


@command()
def reject(
    task: Task,
    version: Version,
    by: By,
    why: Why,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Keep a version from becoming champion.

    Example: condswin reject reconstruction 3 --by "J. Doe" --why "smooths over small tears"
    """
    config = read(task, params, settings)
    from condswin.steps.approve import reject as step

    _say(step(config, task, str(version), by=by, why=why))


@command()
def freeze(
    task: Task,
    by: By,
    why: Why,
    lift: Annotated[bool, typer.Option("--lift", help="Allow moves again.")] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Stop every move of the champion: promotion, approval, roll-back.

    Example: condswin freeze reconstruction --by "J. Doe" --why "audit until Friday"
    """
    config = read(task, params, settings)
    from condswin.steps.approve import freeze as step

    _say(step(config, task, by=by, why=why, lift=lift))


@command()
def rollback(
    task: Task,
    leaving: Annotated[
        int | None, typer.Option("--from", min=1, help="The champion to leave, to go back further than once.")
    ] = None,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Make the previous champion champion again; done twice, it goes back once.

    Example: condswin rollback reconstruction
    """
    config = read(task, params, settings)
    from condswin.steps.promote import rollback as step

    _say(step(config, task, leaving=None if leaving is None else str(leaving)))


@command()
def history(
    task: Task,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Print what happened to the registered versions of a task: decisions, by whom, and why.

    Example: condswin history reconstruction
    """
    config = read(task, params, settings)
    from condswin.reporting.text import print_history
    from condswin.steps.approve import history as step

    events = step(config, task)
    answer(events, lambda: print_history(events))


@command()
def lineage(
    model: Registered,
    check: Annotated[bool, typer.Option("--check", help="Verify each step; status 1 if one does not hold.")] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Print what a registered version was made of: package, decision, training, code, parameters, data.

    Example: condswin lineage models:/condswin-reconstruction@champion --check
    """
    config = read_or_demo(None, params, settings)
    from condswin.reporting.text import print_lineage
    from condswin.steps.lineage import lineage as step
    from condswin.steps.lineage import require_whole

    links = step(config, model, prepared=layout.prepared, check=check)
    records = [link.record() | {"text": link.text} for link in links]
    answer(records, lambda: print_lineage(records))
    require_whole(links)


def _say(done: Any) -> None:
    answer(done._asdict(), plain(done.text))
