import os
import re
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from condswin.errors import CondswinError, ConfigError
from condswin.registry import tracking
from condswin.registry.tracking import (
    TrackingError,
    connect,
    in_a_line,
    tracked_run,
    tracking_errors,
    tracking_uri,
    without_password,
)
from condswin.steps.approve import freeze, history
from tests.registry.race import race
from tests.registry.toy import NAME, World, make_config

pytest_plugins = ["tests.registry.fixtures"]

TRAINER = """
import mlflow
from condswin.registry.tracking import tracked_run
from tests.registry.toy import make_config

uri, name = arguments
line_up()
with tracked_run(make_config(uri), name):
    for step in range(20):
        mlflow.log_metric("loss", 1.0, step=step)
"""


def test_a_relative_database_lies_in_the_working_directory(
    tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(make_config("sqlite:///mlflow.db")) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri(make_config("sqlite:////var/mlflow.db")) == "sqlite:////var/mlflow.db"


def test_the_environment_wins(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(make_config("sqlite:///mlflow.db")) == "http://mlflow:5000"


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "ftp://server"])
def test_places_without_a_registry_are_refused(uri: str, clean_environment: None) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri: .* is no place"):
        tracking_uri(make_config(uri))


def test_passwords_stay_out_of_messages(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_password("postgresql+psycopg2://me:secret@host:1/db") == "postgresql+psycopg2://***@host:1/db"
    assert without_password("postgresql+psycopg2://me:se/cret@host:1/db") == "postgresql+psycopg2://***@host:1/db"
    text = "401 for url: http://me:se@cret@host/api, after http://host/@me and me@host"
    assert without_password(text) == "401 for url: http://***@host/api, after http://host/@me and me@host"
    assert without_password("mysql://h/db?user=me&password=secret of me") == "mysql://h/db?*** of me"
    text = "403 for url: https://s3/b/key?partNumber=1&X-Amz-Signature=secret (why? unknown)"
    assert without_password(text) == "403 for url: https://s3/b/key?*** (why? unknown)"
    with (
        pytest.raises(TrackingError, match=r"url: http://\*\*\*@host/api of http://\*\*\*@other/"),
        tracking_errors("http://me:secret@host"),
    ):
        raise requests.HTTPError("401 for url: http://me:secret@host/api of http://me:secret@other/")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://me:secret@host")
    with pytest.raises(CondswinError) as caught:
        tracking_uri(make_config("sqlite:///mlflow.db"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrapped", "said"),
    [
        ("""(Caused by ReadTimeoutError("HTTPConnection(host='h', port=1): Read timed out. (read timeout=2)"))""",
         "Read timed out. (read timeout=2)"),
        ("(Caused by ResponseError('too many 500 error responses'))", "too many 500 error responses"),
        ("(Caused by ProtocolError('Connection aborted.', ConnectionResetError(104, 'peer')))", "Connection aborted."),
        ("""("Connection broken: ConnectionResetError(104, 'by peer')", ConnectionResetError(104, 'by peer'))""",
         "Connection broken: ConnectionResetError"),
    ],
)  # fmt: skip
def test_what_became_of_a_request_is_said_in_few_words(wrapped: str, said: str) -> None:
    retried = "HTTPConnectionPool(host='h', port=1): Max retries " if "Caused" in wrapped else ""
    line = rf"^MLflow at http://\*\*\*@h:1: /api: {re.escape(said)}; when it answers again, the same"
    with pytest.raises(TrackingError, match=line), tracking_errors("http://me:secret@h:1"):
        raise MlflowException(f"API request to http://me:secret@h:1/api failed with exception {retried}{wrapped}")


def test_a_refusal_is_no_reason_to_try_again() -> None:
    with (
        pytest.raises(TrackingError, match=r"^MLflow at sqlite:///x.db: not for you$"),
        tracking_errors("sqlite:///x.db"),
    ):
        raise MlflowException("not for you", error_code=PERMISSION_DENIED)
    files = "The following failures occurred while downloading one or more artifacts from s3://x:\n##### File a #####\n"
    assert in_a_line(MlflowException(files + "cut off\n##### File b #####\n403")) == "cut off"


def test_a_model_that_nobody_registered_is_said_with_what_makes_it(world: World) -> None:
    missing = f"name={NAME} not found; `condswin register` makes its first version$"
    with pytest.raises(TrackingError, match=missing):
        history(world.config, "reconstruction")
    with pytest.raises(TrackingError, match=missing):
        freeze(world.config, "reconstruction", by="Jane", why="audit")


def test_a_server_that_is_not_there_is_named_within_ten_seconds(
    clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(
        TrackingError, match=r"http://\*\*\*@127\.0\.0\.1:9 cannot be reached \(ConnectionError\)"
    ) as caught:
        connect(make_config("sqlite:///mlflow.db"))
    assert time.monotonic() - started < 10
    assert "secret" not in str(caught.value)


def test_a_gateway_without_its_server_is_not_enough(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setattr(tracking, "PATIENCE", 1.5)
    server = HTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(TrackingError, match="it answers 503"):
            connect(make_config(f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()


def test_a_run_is_logged_beside_the_database(world: World) -> None:
    with tracked_run(world.config, "a run", {"task": "reconstruction"}) as run_id:
        mlflow.log_metric("loss", 1.0)
        mlflow.log_text("hello", "note.txt")
    run = world.client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
    assert run.data.tags["task"] == "reconstruction"
    assert run.data.metrics == {"loss": 1.0}
    assert next((world.folder / "mlartifacts").rglob("note.txt")).read_text() == "hello"
    assert mlflow.active_run() is None
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_two_trainings_may_begin_at_once_where_there_is_no_database_yet(
    tmp_path: Path, clean_environment: None
) -> None:
    uri, names = f"sqlite:///{tmp_path}/mlflow.db", ("reconstruction", "segmentation")
    ended = race(TRAINER, [[uri, name] for name in names], tmp_path)
    assert [trainer.returncode for trainer in ended] == [0, 0], ended
    client = connect(make_config(uri))
    (experiment,) = client.search_experiments(filter_string="name = 'condswin'")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted((run.info.run_name, run.info.status) for run in runs) == [(name, "FINISHED") for name in names]
    assert all(len(client.get_metric_history(run.info.run_id, "loss")) == 20 for run in runs)


def test_a_database_that_cannot_be_written_beside_is_opened_without_a_lock(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = world.folder / "mlflow.db.lock"
    with tracked_run(world.config, "a run"):
        assert lock.exists()
    lock.unlink()
    monkeypatch.setattr(tracking.os, "access", lambda *_: False)  # root may write everywhere
    assert connect(world.config).search_experiments()
    assert not lock.exists()


@pytest.mark.parametrize("revision", ["451aebb31d03", "ffffffffffff"])
def test_tables_of_another_mlflow_are_left_as_they_are(revision: str, world: World) -> None:
    with sqlite3.connect(world.database) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        database.execute("DROP TABLE review_queues")  # which makes MLflow upgrade the others
    database.close()
    before = world.database.read_bytes()
    with pytest.raises(TrackingError, match=r"mlflow\.db: its tables are of another MLflow than 3.*`condswin doctor`"):
        connect(world.config)
    assert world.database.read_bytes() == before


def test_a_failed_run_says_so(world: World) -> None:
    with pytest.raises(ZeroDivisionError), tracked_run(world.config, "a run") as run_id:
        raise ZeroDivisionError
    assert world.client.get_run(run_id).info.status == "FAILED"
    assert mlflow.active_run() is None


def test_a_run_given_by_the_environment_is_adopted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.client
    given = client.create_run(client.create_experiment("theirs"), run_name="their name").info
    monkeypatch.setenv("MLFLOW_RUN_ID", given.run_id)
    for _ in range(2):  # two steps of one process
        with tracked_run(world.config, "our name", {"step": "train"}) as run_id:
            pass
        assert run_id == given.run_id
    run = client.get_run(given.run_id)
    assert run.info.run_name == "their name"
    assert run.data.tags["step"] == "train"
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(TrackingError, match="0000"), tracked_run(world.config, "our name"):
        pass


def test_a_deleted_experiment_is_explained(world: World) -> None:
    with tracked_run(world.config, "a run"):
        pass
    client = world.client
    client.delete_experiment(client.get_experiment_by_name("condswin").experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"), tracked_run(world.config, "again"):
        pass


def test_a_file_that_is_no_database(tmp_path: Path, clean_environment: None) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at" * 99)
    with (
        pytest.raises(TrackingError, match=r"mlflow\.db"),
        tracked_run(make_config(f"sqlite:///{tmp_path}/mlflow.db"), "a"),
    ):
        pass
