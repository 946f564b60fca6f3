"""All parameters together."""

import re
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, field_validator

from condswin.config.names import OWN, TASKS, TaskName
from condswin.config.section import Positive, Section
from condswin.config.task import TaskConfig
from condswin.errors import ConfigError

T = TypeVar("T", bound=TaskConfig)

#: Names of secrets in the query of a database's address.
_SECRET = re.compile(r"(passw|pwd|token|secret)[^&=]*=", re.IGNORECASE)


class TrackingConfig(Section):
    """Where MLflow keeps runs and models.

    Attributes:
        uri: A database or a server, without a password, which this file would show to everybody; the environment
            variable MLFLOW_TRACKING_URI wins over it, and may have one.
        experiment: The runs' experiment; the environment variable MLFLOW_EXPERIMENT_NAME wins over it.
    """

    uri: str = "sqlite:///mlflow.db"
    experiment: str = "condswin"

    @field_validator("uri")
    @classmethod
    def _without_credentials(cls, uri: str) -> str:
        # A password may hold a slash. A user's name alone, or a query, is a token where a server is asked by HTTP.
        if re.match(r"[^/]*://[^/]*:.*@|https?://([^/]*@|[^?]*\?)", uri) or _SECRET.search(uri.partition("?")[2]):
            raise ValueError("there is a password or a token in it; set MLFLOW_TRACKING_URI in the environment instead")
        return uri


class NotifyConfig(Section):
    """Who is told how a run on Kubeflow ended.

    Attributes:
        secret: Secret of the namespace with the address of a Slack-compatible webhook; empty to tell nobody.
        key: The Secret's key that holds it.
        ui: Address of Kubeflow's user interface, for a link to the run; empty for none.
    """

    secret: str = ""
    key: str = "url"
    ui: str = ""


class SearchRunConfig(Section):
    """What the pipeline `search` does.

    Attributes:
        search: A ready search by name, or a YAML file.
        variant: A key of the task's `variants`; empty for its first.
        trials: How many, each a task of its own.
        at_once: How many of them run at the same time.
        seeds: Trainings per trial, whose mean counts.
    """

    search: str = "learning"
    variant: str = ""
    trials: Positive = 8
    at_once: Positive = 2
    seeds: Positive = 1


class ClusterConfig(Section):
    """What the compiled Kubeflow pipelines ask of a cluster.

    Attributes:
        pools: File that says which nodes each step runs on and what it asks of them (`infra/pools.yaml`); empty for
            modest pods of the image `condswin:latest` without accelerators.
        environment: Variables of every task's environment (AWS_ENDPOINT_URL). Nothing secret: whoever sees a run sees
            them.
        secrets: Secrets of the namespace by name; of each, the environment variable that every task gets a key's
            value in (`minio: {accesskey: AWS_ACCESS_KEY_ID}`).
        shards: How many tasks prepare a data set at once, each a part of its cases, at most 8. Files and data version
            do not depend on it.
        dvc_remote: DVC remote (`s3://bucket/prefix`) that ingestion writes a version of its data to; empty for none. It
            is the one that the project's clones pull from.
        volumes: Claims of the namespace by name, and the folder that tasks which read a source find each in.
        notify: Who is told how a run ended.
        search: What the pipeline `search` does.
    """

    pools: str = ""
    environment: dict[str, str] = {}
    secrets: dict[str, dict[str, str]] = {}
    shards: Annotated[int, Field(ge=1, le=8)] = 1
    dvc_remote: str = ""
    volumes: dict[str, str] = {}
    notify: NotifyConfig = NotifyConfig()
    search: SearchRunConfig = SearchRunConfig()


class Config(Section):
    """All of `params.yaml` but the tasks' sections, which `reading.py` adds: one for each task that is wanted.

    Attributes:
        seed: Of generated data, splits, masks and training.
        tracking: Where MLflow keeps runs and models.
        cluster: What Kubeflow asks for.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 10
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def present(self) -> tuple[TaskName, ...]:
        """The tasks that these parameters have a section for."""
        return tuple(name for name in TASKS if getattr(self, name, None) is not None)

    def task(self, name: TaskName) -> TaskConfig:
        """The section of one task.

        Raises:
            ConfigError: There is none.
        """
        if name not in self.present:
            raise ConfigError(
                f"{name}: not in these parameters, which are for {' and '.join(self.present)}; "
                "`condswin params list` says which profiles have it"
            )
        return cast(TaskConfig, getattr(self, name))

    def section(self, kind: type[T]) -> T:
        """The section of the task that has sections of this kind; see `task`."""
        return cast(T, self.task(kind.name))

    @property
    def stages(self) -> dict[TaskName, list[TaskName]]:
        """What `dvc.yaml` makes stages of: itself for each task that is there, nothing for others of condswin's own."""
        return {name: [name] if name in self.present else [] for name in dict.fromkeys((*OWN, *self.present))}

    def values(self) -> dict[str, Any]:
        """What a parameters file holds: JSON-able values, without the tasks that there are no sections for."""
        values = self.model_dump(mode="json")
        sections = {key: value for key, value in values.items() if key not in TASKS or key in self.present}
        return {"tasks": self.stages, **sections}
