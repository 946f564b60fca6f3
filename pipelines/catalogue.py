"""All pipelines by name."""

from typing import Annotated, Protocol

import typer
from kfp.dsl import base_component

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.suggest import unknown
from pipelines.evaluation import batch_predict, drift, evaluation
from pipelines.retraining import build


class Build(Protocol):
    """Makes a pipeline; see `pipelines.retraining.build`."""

    def __call__(
        self, config: Config, tasks: tuple[TaskName, ...], *, with_code: bool = True, retries: bool = True
    ) -> base_component.BaseComponent:
        """The pipeline for some of the parameters' tasks."""


PIPELINES: dict[str, Build] = {
    "retraining": build,
    "evaluation": evaluation,
    "drift": drift,
    "batch-predict": batch_predict,
}


def _known(name: str) -> str:
    if name not in PIPELINES:
        raise typer.BadParameter(unknown("pipeline", name, PIPELINES))
    return name


#: Option of commands that are about one of them.
Pipeline = Annotated[str, typer.Option("--pipeline", callback=_known, help=" or ".join(PIPELINES))]
