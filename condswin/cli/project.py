"""Commands: parameters, code, and the machine."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from condswin.cli.manners import answer, commands, mannered
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
command = commands(app, "Project")


params_app = typer.Typer(no_args_is_help=True, help="Choose, check and show parameters.")
app.add_typer(params_app, name="params", rich_help_panel="Project")
params_app.callback()(mannered(lambda: None))
params_command = commands(params_app)


def _part(name: str) -> str:
    return name if name == "report" else known_task(name)


@params_command("use")
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
    said = f"{params}: {' + '.join(profiles)}" + "".join(f", {key} as before" for key in kept)
    answer({"params": params, "profiles": profiles, "kept": kept}, said)


@params_command("list")
def params_list() -> None:
    """List the ready profiles and what they are for.

    Example: condswin params list
    """
    width = max(map(len, profile_names()))
    for name in profile_names():
        about = read_profile(name).about
        answer({"name": name, "about": about}, f"{name:{width}}  {about}")


@params_command("show")
def params_show(params: Params = DEFAULT_PARAMS, settings: Settings = None) -> None:
    """Check the parameters and print them, defaults included, as JSON.

    Example: condswin params show --set seed=3
    """
    values = load_config(params, settings or []).values()
    answer(values, json.dumps(values, indent=2))


@params_command("tasks")
def params_tasks(
    task: Annotated[str, typer.Argument(callback=lambda name: name and known_task(name), help="Only this one.")] = "",
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Check the parameters, as DVC needs them, and print their tasks; an error if the one asked for is not there.

    Example: condswin params tasks
    """
    config = load_config(params, settings or [])
    if "tasks" not in read_yaml(params):
        raise ConfigError(f"{params}: tasks: missing; dvc.yaml needs it, write `tasks: {json.dumps(config.stages)}`")
    tasks = [config.task(task).name] if task else list(config.present)
    answer({"tasks": tasks}, " ".join(tasks))


@params_command("reference")
def params_reference() -> None:
    """Print a page on every parameter, as `docs/reference/parameters.md`.

    Example: condswin params reference
    """
    from condswin.config.reference import reference

    page = reference()
    answer({"markdown": page}, page.removesuffix("\n"))


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

    paths = list(map(str, step(what, out=target)))
    answer({"outputs": paths}, "\n".join(paths))


@command()
def doctor(
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
        answer(asdict(finding), plain(line))
    if failed:
        sys.exit(1)
