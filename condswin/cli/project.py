"""Commands: parameters, code, and the machine."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from condswin.cli.options import (
    DEFAULT_PARAMS,
    OptionalPath,
    Params,
    Settings,
    known_task,
)
from condswin.config.profiles import profile_names, read_profile, use
from condswin.config.reading import load_config, read_yaml
from condswin.errors import ConfigError
from condswin.outputs import check_output
from condswin.plain import plain

app = typer.Typer()
command = partial(app.command, rich_help_panel="Project")


params_app = typer.Typer(no_args_is_help=True, help="Choose, check and show parameters.")
app.add_typer(params_app, name="params", rich_help_panel="Project")


def _part(name: str) -> str:
    return name if name == "report" else known_task(name)


@params_app.command("use")
def params_use(
    profiles: Annotated[list[str], typer.Argument(help="Profiles; later ones win over earlier ones.")],
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace edited values too.")] = False,
) -> None:
    """Write the parameters of one or more profiles; a source that you set stays.

    Example: condswin params use fastmri cluster --set reconstruction.source=/data/fastmri
    """
    kept = use(profiles, params, settings=settings or [], overwrite=overwrite)
    print(f"{params}: {' + '.join(profiles)}" + "".join(f", {key} as before" for key in kept))


@params_app.command("list")
def params_list() -> None:
    """List the ready profiles and what they are for."""
    width = max(map(len, profile_names()))
    for name in profile_names():
        print(f"{name:{width}}  {read_profile(name).about}")


@params_app.command("show")
def params_show(params: Params = DEFAULT_PARAMS, settings: Settings = None) -> None:
    """Check the parameters and print them, defaults included, as JSON."""
    print(json.dumps(load_config(params, settings or []).values(), indent=2))


@params_app.command("tasks")
def params_tasks(
    task: Annotated[str, typer.Argument(callback=lambda name: name and known_task(name), help="Only this one.")] = "",
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Check the parameters, as DVC needs them, and print their tasks; an error if the one asked for is not there."""
    config = load_config(params, settings or [])
    if "tasks" not in read_yaml(params):
        raise ConfigError(f"{params}: tasks: missing; dvc.yaml needs it, write `tasks: {json.dumps(config.stages)}`")
    print(" ".join([config.task(task).name] if task else config.present))


@params_app.command("reference")
def params_reference() -> None:
    """Print a page on every parameter, as `docs/parameters.md`."""
    from condswin.config.reference import reference

    print(reference(), end="")


@command()
def code(
    what: Annotated[str, typer.Argument(callback=_part, help="A task, or `report` for what is on all tasks.")],
    out: OptionalPath = None,
) -> None:
    """Write, for each step of a task, the checksums of the code that its result depends on.

    DVC's stages depend on these files. Example: condswin code reconstruction
    """
    target = out or Path("code", what)
    check_output(target, step="code", inputs=[])
    from condswin.steps.code import code as step

    for path in step(what, out=target):
        print(path)


@command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per finding.")] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Look at what a run needs, here and on its servers, and say what to do; status 1 if anything would fail.

    Example: condswin doctor
    """
    from dataclasses import asdict

    from condswin.doctor.examine import examine

    failed = False
    for finding in examine(params, settings or []):
        failed |= finding.state == "failed"
        mend = f"; {finding.mend}" if finding.mend else ""
        line = f"{finding.state:8}  {finding.name}: {finding.said}{mend}"
        print(json.dumps(asdict(finding)) if as_json else plain(line), flush=True)
    if failed:
        sys.exit(1)
