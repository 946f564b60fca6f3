"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from condswin.config.names import TASKS, TaskName
from condswin.config.root import Config
from condswin.suggest import unknown

Params = Annotated[Path, typer.Option("--params", help="Parameters file.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="Only this task; may be given again.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Instead of the file's value.")]


def chosen(config: Config, names: list[str] | None) -> tuple[TaskName, ...]:
    """The named tasks, or all of the parameters."""
    for name in names or ():
        if name not in TASKS:
            raise typer.BadParameter(unknown("task", name, TASKS), param_hint="--task")
        config.task(name)
    return tuple(names) if names else config.present
