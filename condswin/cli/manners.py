"""What every command takes, and how it answers: `--json`, `--verbose`, `--quiet`, `--debug`, `--version`.

Answers go to standard output; progress, notes and errors go to standard error. The options may stand before the
command's name or after it.
"""

import functools
import inspect
import json
import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

import typer

from condswin import __version__, progress

Run = TypeVar("Run", bound=Callable[..., object])

#: Environment variable that asks for tracebacks, as `--debug` does.
DEBUG = "CONDSWIN_DEBUG"
_PANEL = "Every command"
# Where answers go as JSON, alone; None without --json.
_answers: TextIO | None = None


def answer(record: Mapping[str, Any] | Iterable[Mapping[str, Any]], said: str | Callable[[], object]) -> None:
    """Answers with the record as a line of JSON if `--json` was given, else with the text.

    Args:
        record: What JSON can hold, and paths; of several, each is a line.
        said: The text, or what prints it.
    """
    if _answers is not None:
        for each in [record] if isinstance(record, Mapping) else record:
            print(json.dumps(each, allow_nan=False, default=str), file=_answers, flush=True)
    elif isinstance(said, str):
        print(said, flush=True)
    else:
        said()


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"condswin {__version__}")
        raise typer.Exit


_TAKEN: dict[str, Any] = {
    "as_json": Annotated[
        bool, typer.Option("--json", rich_help_panel=_PANEL, help="Answer in lines of JSON, and print nothing else.")
    ],
    "verbose": Annotated[
        bool,
        typer.Option("--verbose", "-v", rich_help_panel=_PANEL, help="Libraries' warnings and logs, versions, times."),
    ],
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", rich_help_panel=_PANEL, help="No progress; answers, notes and errors.")
    ],
    "debug": Annotated[
        bool, typer.Option("--debug", rich_help_panel=_PANEL, help=f"Show where an error arose; so does {DEBUG}=1.")
    ],
    "tell_version": Annotated[
        bool,
        typer.Option(
            "--version", rich_help_panel=_PANEL, callback=_tell_version, is_eager=True, help="Say it, and end."
        ),
    ],
}
_WAYS = ("as_json", "verbose", "quiet")


def mannered(run: Run) -> Run:
    """The same command, or group, with the options that all have.

    A group only notes them: its command does what both were given.
    """

    @functools.wraps(run)
    def called(ctx: typer.Context, **given: Any) -> None:
        taken = {name: given.pop(name) for name in _TAKEN}
        if taken["debug"]:
            os.environ[DEBUG] = "1"
        asked = ctx.meta.setdefault(__name__, set())  # one of all contexts of a call
        asked.update(name for name in _WAYS if taken[name])
        if ctx.invoked_subcommand is None:
            with _carried_out(ctx.command_path, **{name: name in asked for name in _WAYS}):
                run(**given)

    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in _TAKEN.items()
    ]
    own = inspect.signature(run, eval_str=True)
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    signature = own.replace(parameters=[context, *own.parameters.values(), *options])
    called.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    vars(called)["__signature__"] = signature
    return called  # type: ignore[return-value]


def commands(app: typer.Typer, panel: str | None = None) -> Callable[..., Callable[[Run], Run]]:
    """A decorator as `app.command`, of commands with manners, which stay functions that others may call."""

    def named(name: str | None = None) -> Callable[[Run], Run]:
        def registered(run: Run) -> Run:
            app.command(name, rich_help_panel=panel)(mannered(run))
            return run

        return registered

    return named


@contextmanager
def _carried_out(command: str, *, as_json: bool, verbose: bool, quiet: bool) -> Iterator[None]:
    """Runs the block in the manner that was asked for, and leaves the process as it was."""
    global _answers
    before, _answers = _answers, sys.stdout if as_json else None
    # What libraries print is no answer.
    with warnings.catch_warnings(), progress.hushed(quiet), redirect_stdout(sys.stderr if as_json else sys.stdout):
        try:
            with _told(command) if verbose else _calm():
                yield
        finally:
            _answers = before


@contextmanager
def _calm() -> Iterator[None]:
    """Leaves out libraries' warnings and notices, unless Python and MLflow were asked for them."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    yield


@contextmanager
def _told(command: str) -> Iterator[None]:
    """Tells what a maintainer would ask: where and with what it runs, what libraries say, how long it took."""
    root, started = logging.getLogger(), time.monotonic()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    warnings.simplefilter("default")
    logging.captureWarnings(True)
    log = logging.getLogger("condswin")
    log.info("condswin %s, %s", __version__, Path(__file__).parents[1])
    log.info("Python %s, %s; %s", platform.python_version(), sys.executable, platform.platform())
    log.info("%s in %s", command, Path.cwd())
    try:
        yield
    finally:
        log.info("%s took %.1f s", command, time.monotonic() - started)
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(level)
