"""The command line: one command per step, the same functions that DVC and Kubeflow call."""

import io
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer

from condswin import __version__
from condswin.cli import data, judging, learning, project, registering, using
from condswin.errors import CondswinError
from condswin.plain import plain
from condswin.progress import hush

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
# In the order of the pipeline, which help shows them in.
for part in (data, learning, judging, registering, using, project):
    app.add_typer(part.app)

#: Environment variable that asks for tracebacks, as `--debug` does.
DEBUG = "CONDSWIN_DEBUG"


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"condswin {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help=f"Show where an error arose; so does {DEBUG}=1.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; results and errors alone.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version, and end.")
    ] = False,
) -> None:
    """Conditional Swin U-Nets: retrain, evaluate and promote MRI reconstruction and CT segmentation networks.

    Status: 0 done; 1 an error that the last line says; 2 a mistake in the command; 3 data drifted, or a manifest is
    stale; 143 asked to stop, and a training goes on from where it was.
    """
    if debug:
        os.environ[DEBUG] = "1"
    if quiet:
        hush()


def main() -> None:
    """Runs the command line; an error is one message and an exit status."""
    # Python would leave half-written files behind, and as a container's first process not end at all.
    signal.signal(signal.SIGTERM, _terminate)
    # MLflow's notices on telemetry would stand between a command's own lines.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # So would PyTorch's at each start and stop of its profiler, which `bench` counts memory with.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    # And advice on parameters that have a gradient in each step after all, from each process that trains.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files that are not UTF-8 are shown by their bytes.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except BrokenPipeError:
        sys.exit(0)
    except CondswinError as error:
        # Messages have lines; what files and parameters bring into them is shown letter by letter.
        _end(f"error: {error}".split("\n"), error.exit_status)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        _end([f"error: {type(error).__name__}: {lines[0]}; condswin did not foresee this: {DEBUG}=1 shows where"], 1)


def _end(lines: list[str], status: int) -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    print("\n".join(map(plain, lines)), file=sys.stderr)
    sys.exit(status)


def _terminate(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
