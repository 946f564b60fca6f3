"""What commands have in common: their options, and how they read parameters."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from condswin.config.names import TASKS, TaskName
from condswin.config.profiles import compose
from condswin.config.reading import load_config, read_yaml
from condswin.config.root import Config
from condswin.errors import BadFileError
from condswin.suggest import unknown


def known_task(name: str) -> str:
    """The name of a task; refuses any other."""
    if name not in TASKS:
        raise typer.BadParameter(unknown("task", name, TASKS))
    return name


Params = Annotated[Path, typer.Option("--params", help="Parameters file.", show_default=True)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Instead of the file's value; may be repeated: seed=3."),
]
Task = Annotated[str, typer.Argument(callback=known_task, help=" or ".join(TASKS))]
Variant = Annotated[str, typer.Argument(help="A variant named in the parameters.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write beside files that are not condswin's; replace those of equal names.")
]
OptionalPath = Annotated[Path | None, typer.Option(help="Default: the place in dvc.yaml.")]
DEFAULT_PARAMS = Path("params.yaml")
Prepared = Annotated[Path | None, typer.Option(help="Output of prepare. Default: the place in dvc.yaml.")]
Registered = Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION.")]


def require(*paths: Path) -> None:
    """Refuses inputs that are not there before a step's slow imports; the step looks closer.

    Raises:
        BadFileError: Names the first.
    """
    for path in paths:
        if not path.exists():
            raise BadFileError(path, "no such file; run the step that writes it first")


def local(models: Iterable[str]) -> list[Path]:
    """Those of some models that are folders of this machine, not addresses in a registry."""
    return [Path(model) for model in models if not model.startswith("models:")]


def read(task: str, params: Path, settings: list[str] | None) -> Config:
    """The parameters, which must have the task: called before a step's slow imports."""
    config = load_config(params, settings or [])
    config.task(task)
    return config


def read_or_demo(task: TaskName | None, params: Path, settings: list[str] | None) -> Config:
    """The parameters, or the demo's for what needs none of its own: scoring and predicting anybody's files.

    Where they lack the task, its section alone is the demo's, with the settings that are for it.
    """
    given = settings or []
    if not params.exists():
        return compose(["demo"], given)
    values = read_yaml(params)
    if task is None or (isinstance(values, dict) and values.get(task) is not None):
        return load_config(params, given)
    own = [each for each in given if each.partition("=")[0].partition(".")[0].strip() == task]
    config = load_config(params, [each for each in given if each not in own])
    return compose(["demo"], own).model_copy(update={"tracking": config.tracking, "seed": config.seed})
