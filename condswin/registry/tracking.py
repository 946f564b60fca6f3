"""Where runs and models are kept, and runs to log to."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import mlflow.store.db_migrations
import requests  # type: ignore[import-untyped]
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from condswin.config.root import Config
from condswin.errors import CondswinError, ConfigError

#: Seconds within which a server must give a sign of life.
PATIENCE = 8.0
#: What to do where no answer came, or none of use.
MEND = "when it answers again, the same command goes on from there"

_SQLITE = "sqlite:///"
#: Of several files, MLflow lists what kept it from fetching each.
_NO_REASON = re.compile("The following failures occurred|##### File ")
#: A request that failed: MLflow, requests and urllib3 each wrap the reason once.
_RETRIED = re.compile(
    r"API request to (?P<url>\S+) failed with (?:timeout )?exception (?:.*\(Caused by \w+)?"
    r"\([\"'](?:HTTPS?Connection\w*\(.*?\): )?(?P<reason>[^\"']*?)[ ,(\d]*[\"'].*"
)
_NOT_REGISTERED = re.compile(r"Registered Model with name=\S+ not found")
_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")


class TrackingError(CondswinError):
    """The tracking server or database does not answer, or refuses; the message names it without credentials."""


def tracking_uri(config: Config) -> str:
    """The tracking (and registry) URI: MLFLOW_TRACKING_URI if set, else `tracking.uri`; sqlite paths absolute.

    Raises:
        ConfigError: MLflow cannot keep models there.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    origin, uri = ("MLFLOW_TRACKING_URI", given) if given else ("tracking.uri", config.tracking.uri)
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme not in _SCHEMES:
        raise ConfigError(
            f"{origin}: {without_password(uri)!r} is no place for MLflow's registry; "
            "give sqlite:///file.db, http(s)://server or postgresql+psycopg2://..."
        )
    if uri.startswith(_SQLITE):
        return _SQLITE + str(Path(uri.removeprefix(_SQLITE)).absolute())
    return uri


def without_password(text: str) -> str:
    """A URI, or a text with some in it, fit for messages and logs."""
    # A password may hold a slash; without a colon before it, an @ after a slash is a part of the path.
    text = re.sub(r"://([^/\s]*|[^/\s]*:\S*)@", "://***@", text)
    # A query may have a password, a token, or the signature of an address in a bucket.
    return re.sub(r"(://[^\s?]*\?)\S+", r"\1***", text)


def connect(config: Config) -> MlflowClient:
    """Points MLflow at the configured place and makes sure that it answers.

    Raises:
        ConfigError: The URI is not usable.
        TrackingError: Nothing answers there within `PATIENCE` seconds, or it is a database of another MLflow.
    """
    uri = tracking_uri(config)
    wait_for_server(uri)
    with (
        tracking_errors(uri),
        environment_kept("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"),
        _one_at_a_time(uri),
    ):
        _refuse_other_tables(uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def is_there(config: Config) -> bool:
    """Whether there is a registry to ask: a database file that is missing is made by whoever connects to it."""
    return _is_made(tracking_uri(config))


def _is_made(uri: str) -> bool:
    return not uri.startswith(_SQLITE) or Path(uri.removeprefix(_SQLITE)).is_file()


def _refuse_other_tables(uri: str) -> None:
    """MLflow changes the tables of an older MLflow as soon as it opens them, if it misses any."""
    if uri.startswith(("http://", "https://")) or not _is_made(uri):
        return
    engine = create_engine(uri, poolclass=NullPool)
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found not in (None, migrations().get_current_head()):
        raise TrackingError(
            f"MLflow at {without_password(uri)}: its tables are of another MLflow than {mlflow.__version__}, which "
            "would change them; `condswin doctor` says what to do"
        )


@cache
def migrations() -> ScriptDirectory:
    """The revisions of tables that the installed MLflow knows."""
    return ScriptDirectory(str(Path(mlflow.store.db_migrations.__file__).parent))


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Lets one process at a time open a database file: MLflow creates tables wherever it finds them missing."""
    if not uri.startswith(_SQLITE):
        yield
        return
    database = Path(uri.removeprefix(_SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(database.parent, os.W_OK):  # nothing can be created there
        yield
        return
    with FileLock(f"{database}.lock"):
        yield


def wait_for_server(uri: str) -> None:
    """Returns once a tracking server gives any sign of life; at once where `uri` is a database.

    Raises:
        TrackingError: It gives none within `PATIENCE` seconds.
    """
    if not uri.startswith(("http://", "https://")):
        return
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            response = requests.get(uri.rstrip("/") + "/health", timeout=PATIENCE / 2)
            # A gateway in front of the server may ask for a login here (401); then it is up.
            if response.status_code < 500:
                return
            reason = f"it answers {response.status_code} {response.reason}"
        except requests.RequestException as error:
            reason = type(error).__name__
        if time.monotonic() + 1 > give_up:
            raise TrackingError(
                f"MLflow server {without_password(uri)} cannot be reached ({reason}); "
                "start it, or set MLFLOW_TRACKING_URI or tracking.uri to another"
            )
        time.sleep(1)


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Turns MLflow's errors into one that names the server or database."""
    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError) as error:
        place, mend = without_password(uri), "" if _is_an_answer(error) else f"; {MEND}"
        if _NOT_REGISTERED.search(str(error)):
            mend = "; `condswin register` makes its first version"
        raise TrackingError(f"MLflow at {place}: {in_a_line(error).removeprefix(place)}{mend}") from error


def _is_an_answer(error: Exception) -> bool:
    """Whether an error says that something is not there or not allowed, not that no answer came or none of use."""
    return isinstance(error, MlflowException) and error.error_code not in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")


def in_a_line(error: Exception) -> str:
    """The reason that is in the text of one of MLflow's errors, without credentials and without what a server sent."""
    lines = [line for line in str(error).strip().splitlines() if not _NO_REASON.match(line)]
    text = (lines or [type(error).__name__])[0].partition(" Response body: ")[0]
    return without_password(_RETRIED.sub(r"\g<url>: \g<reason>", text))[:400]


@contextmanager
def tracked_run(config: Config, name: str, tags: Mapping[str, str] | None = None) -> Iterator[str]:
    """Runs the block inside an MLflow run, active for `mlflow.log_*`, and yields its id.

    MLFLOW_RUN_ID (Kubeflow Pipelines' MLflow plugin sets it) names a run to adopt: it keeps its name and experiment.
    The run ends as FINISHED, or as FAILED if the block raises.

    Raises:
        TrackingError: MLflow cannot be reached, or the run to adopt does not exist there.
    """
    client = connect(config)
    uri = tracking_uri(config)
    adopted = os.environ.get("MLFLOW_RUN_ID", "").strip() or None
    nested = mlflow.active_run() is not None
    with tracking_errors(uri):
        if adopted:
            run = mlflow.start_run(run_id=adopted, tags=dict(tags or {}), nested=nested)
        else:
            experiment = experiment_id(client, config, uri)
            run = mlflow.start_run(experiment_id=experiment, run_name=name, tags=dict(tags or {}), nested=nested)
    # MLflow forgets MLFLOW_RUN_ID when a run ends, but the next step of this process must adopt it as well.
    with environment_kept("MLFLOW_RUN_ID"):
        try:
            yield str(run.info.run_id)
        except BaseException:
            with suppress(Exception):
                mlflow.end_run("FAILED")
            raise
        with tracking_errors(uri):
            mlflow.end_run()


def experiment_id(client: MlflowClient, config: Config, uri: str) -> str:
    """The id of the experiment that the parameters name, made if it is not there.

    Raises:
        TrackingError: It was deleted.
    """
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or config.tracking.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        # A server knows where its artifacts belong; beside a database file they go to a folder that git ignores.
        location = None
        if uri.startswith(_SQLITE):
            location = (Path(uri.removeprefix(_SQLITE)).parent / "mlartifacts").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # made by a process beside this one
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {name!r} was deleted in MLflow at {without_password(uri)}; "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` or choose another tracking.experiment"
        )
    return str(found.experiment_id)


@contextmanager
def environment_kept(*names: str) -> Iterator[None]:
    """Undoes MLflow's writing of its settings into the environment, which would outlive the config they came from."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
