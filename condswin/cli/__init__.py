"""The command line: one command per step, the same functions that DVC and Kubeflow call."""

import errno
import io
import os
import signal
import sys
import traceback
from types import FrameType
from typing import cast

import typer

from condswin.cli import data, judging, learning, project, registering, using
from condswin.cli.manners import DEBUG, mannered
from condswin.errors import CondswinError
from condswin.plain import plain

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of the pipeline, which help shows them in.
for part in (data, learning, judging, registering, using, project):
    app.add_typer(part.app)

# What typer raises for mistakes in a command: it has no public name for what they have in common.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])


@app.callback()
@mannered
def options() -> None:
    """Conditional Swin U-Nets: retrain, evaluate and promote MRI reconstruction and CT segmentation networks.

    Status: 0 done; 1 an error that the last line says; 2 a mistake in the command; 3 data drifted, or a manifest is
    stale; 4 to 6 of `promote --exit-code`; 130 interrupted; 143 asked to stop.


    Example: condswin params use demo
    """


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
        sys.exit(app(standalone_mode=False))
    except BrokenPipeError:
        sys.exit(0)
    except CondswinError as error:
        # Messages have lines; what files and parameters bring into them is shown letter by letter.
        _end(f"error: {error}".split("\n"), error.exit_status)
    except _UsageError as error:
        _end(_mistake(error), error.exit_code)
    except OSError as error:
        _end([_unwritable(error) or _unforeseen(error)], 1)
    except Exception as error:
        _end([_unforeseen(error)], 1)


def _unforeseen(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"error: {type(error).__name__}: {lines[0]}; condswin did not foresee this: {DEBUG}=1 shows where"


def _unwritable(error: OSError) -> str:
    """What a file system refused, with the mend; empty if it was something else."""
    mends = {
        errno.ENOSPC: "make room, or write elsewhere with --out; then start again",
        errno.EDQUOT: "make room, or write elsewhere with --out; then start again",
        errno.EROFS: "write elsewhere with --out",
        errno.EACCES: "get the permission, or give another place",
        errno.EPERM: "get the permission, or give another place",
    }
    mend = mends.get(error.errno or 0)
    where = "" if error.filename is None else f"{error.filename}: "
    return f"error: {where}{os.strerror(error.errno or 0).lower()}; {mend}" if mend else ""


def _mistake(error: typer.BadParameter) -> list[str]:
    """A mistake in a command, in a line; none where a group was called alone, which has shown its help."""
    said = error.format_message().rstrip(".")
    where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
    return [f"error: {said[0].lower()}{said[1:]}{where}"] if said else []


def _end(lines: list[str], status: int) -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    for line in lines:
        print(plain(line), file=sys.stderr)
    sys.exit(status)


def _terminate(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
