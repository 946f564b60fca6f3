"""What tasks of a pipeline are given, and what they may rely on."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from condswin import layout
from condswin.code import closure
from condswin.config.names import TaskName
from condswin.config.parts import whole
from condswin.config.root import Config
from condswin.errors import ImageError, SourceError
from condswin.files import fingerprint

Log = Callable[[str, float], None]


class Artifact(Protocol):
    """What Kubeflow hands over as an input."""

    @property
    def path(self) -> str:
        """A file or folder of this machine."""


class Detected(Protocol):
    """What Kubeflow's user interface shows of detection: a table of what was taken for what, and a curve."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Shows counts; rows are those of the reference."""

    def log_roc_data_point(self, fpr: float, tpr: float, threshold: float) -> None:
        """Shows another point of the receiver operating characteristic."""


# Of components that do not run the one step of their name.
_STEPS = {"ingest": ("demo_data", "ingest"), "tune": ("tune", "train"), "train_nodes": ("train",)}


def code_of(component: str, task: str) -> str:
    """Checksum of the code that a component runs for a task."""
    return fingerprint([closure(step, task) for step in _STEPS.get(component, (component,))])


def read(params: str, task: str) -> Config:
    """The parameters that a task is given, as JSON."""
    return whole(json.loads(params), task)


def require(code: str, component: str, task: str) -> None:
    """Refuses to run other code than the pipeline was compiled with: Kubeflow's cache would take one for the other."""
    if code and code != code_of(component, task):
        raise ImageError(
            f"{component} {task}: this image holds other code than the pipeline was compiled with; build and name "
            "(`cluster.pools`) an image of the same commit, or compile again"
        )


def version_of(config: Config, task: TaskName) -> str:
    """Which data the source holds; equal for equal data."""
    from condswin.sources.local import source_version

    if not generated(config, task):
        return source_version(config.task(task).source)
    decides = [config.seed, config.values()[task]["demo"], closure("demo_data", task)]
    return f"demo-{fingerprint(decides)[:16]}"


def require_version(config: Config, task: TaskName, version: str) -> None:
    """Refuses other data than the run was started for."""
    if (found := version_of(config, task)) != version:
        raise SourceError(
            f"{config.task(task).source}: holds {found}, and the run was started for {version}: it changed meanwhile; "
            "start another run"
        )


def generated(config: Config, task: TaskName) -> bool:
    """Whether the source is demo data, which a pod generates itself."""
    return Path(config.task(task).source) == layout.demo(task)


@contextmanager
def raw(config: Config, task: TaskName) -> Iterator[str]:
    """The source for the block: the parameters', or a folder of demo data."""
    from condswin.steps.demo_data import demo_data

    if not generated(config, task):
        yield config.task(task).source
        return
    with tempfile.TemporaryDirectory() as folder:
        here = config.model_copy(update={task: config.task(task).model_copy(update={"source": folder})})
        demo_data(here, task, out=Path(folder))
        yield folder
