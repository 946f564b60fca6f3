"""`condswin doctor` before real files and a real database, and servers that refuse, lie or are something else."""

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time
from typing import Any

import pytest
import torch
from mlflow.store.db.utils import _initialize_tables
from mlflow.version import VERSION
from sqlalchemy import create_engine
from typer.testing import CliRunner

from condswin.cli import app
from condswin.config.profiles import compose, write_config
from condswin.doctor import machine, servers
from condswin.doctor.examine import examine
from condswin.doctor.finding import Finding
from condswin.patients import PATIENT_KEY

SECRET = "Sesame-0pen"
packages = machine.packages
PLACES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "KFP_HOST", "KFP_TOKEN",
          "KFP_NAMESPACE", "KF_PIPELINES_SA_TOKEN_PATH", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
          "MLFLOW_TRACKING_TOKEN", PATIENT_KEY)  # fmt: skip
Answer = tuple[int, Any]


@pytest.fixture(autouse=True)
def _nothing_set(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(servers, "TIMEOUT", (1.0, 1.0))
    # Reads the metadata of all packages each time; it has tests of its own.
    monkeypatch.setattr(machine, "packages", lambda: iter(()))
    write_config(compose(["demo", "tiny"]), Path("params.yaml"), comment="test")


def findings(*settings: str) -> dict[str, Finding]:
    return {each.name: each for each in examine(Path("params.yaml"), list(settings))}


@contextmanager
def server(answers: dict[str, Answer], *, off: float = 0.0, needs: str = "") -> Iterator[str]:
    """Answers by path; 401 without an Authorization of `needs`; its clock is `off` by so many seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            status, answer = answers.get(path, (404, "nothing"))
            if needs and path != "/version" and needs not in self.headers.get("Authorization", ""):
                status, answer = 401, "who?"
            content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response_only(status)
            self.send_header("Date", formatdate(time() + off, usegmt=True))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


SEARCH = "/api/2.0/mlflow/registered-models/search"
MLFLOW: dict[str, Answer] = {"/version": (200, VERSION), SEARCH: (200, {})}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow made."""
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    _initialize_tables(create_engine(f"sqlite:///{file}"))
    return file


def database(tables: Path, revision: str = "") -> Finding:
    """What is said of a copy of the database, at another revision."""
    shutil.copy(tables, "mlflow.db")
    if revision:
        with sqlite3.connect("mlflow.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    return findings()["mlflow"]


def test_the_tables_are_compared_with_this_mlflow(tables: Path) -> None:
    good = database(tables)
    assert (good.state, good.said[-len(VERSION) :]) == ("ok", VERSION)
    older = database(tables, "451aebb31d03")
    assert older.state == "failed"
    assert f"an older MLflow than {VERSION}" in older.said
    assert "mlflow db upgrade" in older.mend
    newer = database(tables, "ffffffffffff")
    assert f"a newer MLflow than {VERSION}" in newer.said
    assert "install the MLflow that made them" in newer.mend


def test_looking_makes_no_database() -> None:
    assert findings()["mlflow"] == Finding(
        "mlflow", "ok", f"sqlite:///{Path('mlflow.db').absolute()}: made by the first run"
    )
    assert not Path("mlflow.db").exists()
    Path("mlflow.db").write_bytes(b"no database at all, and longer than its header is" * 9)
    assert "does not answer (DatabaseError)" in findings()["mlflow"].said
    Path("mlflow.db").unlink()
    with sqlite3.connect("mlflow.db") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    assert "the tables there are not MLflow's" in findings()["mlflow"].said


def test_a_database_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://mlflow:{SECRET}@127.0.0.1:1/mlflow")
    found = findings()["mlflow"]
    assert found.state == "failed"
    assert "postgresql+psycopg2://***@127.0.0.1:1/mlflow: does not answer (OperationalError)" in found.said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"ftp://a:{SECRET}@host")
    assert findings()["mlflow"].said.startswith("MLFLOW_TRACKING_URI: 'ftp://***@host' is no place")


@pytest.mark.parametrize(
    ("answers", "state", "said"),
    [
        (MLFLOW, "ok", "answers"),
        (MLFLOW | {SEARCH: (200, "<html>")}, "failed", "answers 200 to a search of models"),
        (MLFLOW | {SEARCH: (401, "")}, "failed", "answers 401"),
        (MLFLOW | {"/version": (200, "<html>Sign in</html>")}, "failed", "is not MLflow (a login page?)"),
        (MLFLOW | {"/version": (503, "")}, "failed", "answers 503"),
    ],
)
def test_an_mlflow_server(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Answer], state: str, said: str) -> None:
    with server(answers) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        found = findings()["mlflow"]
    assert (found.state, said in found.said) == (state, True), found


def test_credentials_are_tried_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(MLFLOW, needs="Basic cnVubmVyOlNlc2FtZS0wcGVu") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        refused = findings()["mlflow"]
        assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in refused.mend
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "runner")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        assert findings()["mlflow"].mend.endswith("anew")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
        assert findings()["mlflow"].said.endswith("and takes the credentials")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org")
    monkeypatch.setattr(servers, "_get", lambda *_, **__: _answer(VERSION))
    assert "would get the password in the clear" in findings()["mlflow"].said


def _answer(content: str) -> Any:
    found = servers.requests.Response()
    found.status_code, found._content = 200, content.encode()
    return found


def test_a_server_that_asks_nobody_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    monkeypatch.setattr(servers, "_get", lambda url, **_: _answer(VERSION if url.endswith("/version") else "{}"))
    assert findings()["mlflow"].state == "warning"
    monkeypatch.setattr(servers, "_get", lambda url, **_: _answer("1.2.3" if url.endswith("/version") else "{}"))
    assert findings()["mlflow version"].said == f"the server has 1.2.3, here is {VERSION}"


@pytest.mark.parametrize(("off", "state", "said"), [(-90, "warning", "90 s ahead of"), (3600, "failed", "behind")])
def test_clocks_are_compared(monkeypatch: pytest.MonkeyPatch, off: float, state: str, said: str) -> None:
    with server(MLFLOW, off=off) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        found = findings()["mlflow clock"]
    assert found.state == state
    seconds = int(found.said.split()[3])
    assert abs(seconds - abs(off)) <= 2
    assert found.said.endswith(f"{said.split(' s ')[-1]} the server's")


def test_no_server_is_said_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("KFP_HOST", "http://127.0.0.1:1")
    found = findings()
    assert found["mlflow"].said == "http://127.0.0.1:1: does not answer (ConnectionError)"
    assert found["kubeflow"].state == "failed"
    assert "is the port-forward running" in found["kubeflow"].mend


EXPERIMENTS = "/apis/v2beta1/experiments"


@pytest.mark.parametrize(
    ("answer", "said"),
    [((200, {}), "lists experiments"), ((200, "<html>"), "a login page?"), ((403, {}), "answers 403"),
     ((400, {}), "answers 400"), ((500, {}), "answers 500")],
)  # fmt: skip
def test_kubeflow(monkeypatch: pytest.MonkeyPatch, answer: Answer, said: str) -> None:
    with server({EXPERIMENTS: answer}, needs=f"Bearer {SECRET}") as address:
        monkeypatch.setenv("KFP_HOST", address)
        assert "give a token by KFP_TOKEN" in findings()["kubeflow"].mend
        Path("token").write_text(f"{SECRET}\n")
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", "token")
        found = findings()["kubeflow"]
    assert said in found.said
    assert (found.state == "ok") == (answer == (200, {}))
    assert bool(found.mend) == (found.state != "ok")
    monkeypatch.setenv("KFP_HOST", "http://kubeflow.example.org")
    assert "would get the token in the clear" in findings()["kubeflow"].said
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", "elsewhere")
    assert findings()["kubeflow"].said == "elsewhere: FileNotFoundError"


def test_a_kubeflow_that_is_too_old_is_told_and_one_that_does_not_say_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [
        ("2.5.0", "2.5"),
        ("v2.4.1", "2.4"),
        ("1.8.22", "1.8"),
        ("2.14.0", ""),
        ("3.0.0", ""),
        ("dev", ""),
        (None, ""),
    ]
    answers: list[tuple[Any, str]] = [({"frontendTagName": tag}, old) for tag, old in told]
    for answer, old in [*answers, ({"multi_user": True}, ""), ("2.5.0", ""), ([], "")]:
        with server({EXPERIMENTS: (200, {}), "/apis/v2beta1/healthz": (200, answer)}) as address:
            monkeypatch.setenv("KFP_HOST", address)
            first, *more = servers.kubeflow()
        assert first.state == "ok"
        said = f"Kubeflow Pipelines {old}, and runs need 2.14 or newer"
        assert more == ([Finding("kubeflow version", "failed", said, "have it upgraded")] if old else [])


def listing(*keys: str) -> str:
    contents = "".join(f"<Contents><Key>{key}</Key><Size>3</Size></Contents>" for key in keys)
    return f"<ListBucketResult><Name>scans</Name>{contents}</ListBucketResult>"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/scans": (200, listing("mri/a.h5")), "/scans/mri/a.h5": (206, "x")}, "s3://scans/mri: listed and read"),
        ({"/scans": (200, listing())}, "s3://scans/mri: nothing is there"),
        ({"/scans": (200, listing("mri/a.h5")), "/scans/mri/a.h5": (403, "<Error><Code>AccessDenied</Code></Error>")},
         "s3://scans/mri: refused (AccessDenied)"),
        ({"/scans": (404, "<Error><Code>NoSuchBucket</Code></Error>")}, "s3://scans/mri: refused (NoSuchBucket)"),
        ({"/scans": (403, f"<Error><Code>{SECRET} [x]</Code></Error>")}, "s3://scans/mri: refused (403)"),
    ],
)  # fmt: skip
def test_a_source_in_s3(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Answer], said: str) -> None:
    setting = "reconstruction.source=s3://scans/mri"
    assert findings(setting)["s3"].said == "no credentials are set"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with server(answers, off=-7200) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        found = findings(setting)
    assert found["s3"].said == said
    assert found["s3 clock"].state == "failed"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert findings(setting)["s3"].said == "s3://scans/mri: no answer (EndpointConnectionError)"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nowhere")
    assert findings(setting)["s3"].said == "no client (ValueError)"


def test_versions_in_a_dvc_remote_and_the_remote_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    source, key = f"dvc+s3://scans/{'ab' + 30 * '0'}.dir", f"files/md5/ab/{30 * '0'}.dir"
    with server({"/scans": (200, listing(key)), f"/scans/{key}": (206, "x")}) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert findings(f"reconstruction.source={source}")["s3"].said == f"{source}: listed and read"
    with server({"/scans": (200, listing()), "/kept": (200, listing())}) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        missing = findings(f"reconstruction.source={source}")["s3"]
        assert (missing.state, missing.said) == ("failed", f"{source}: nothing is there")
        empty = findings("cluster.dvc_remote=s3://kept/data")["s3"]
        assert (empty.state, empty.said) == ("ok", "s3://kept/data: listed; nothing is there yet")
    wrong = findings("reconstruction.source=dvc+s3://scans/ab.dir")["s3"]
    assert wrong.state == "failed"
    assert "no version of data" in wrong.said


def test_packages_are_compared_with_the_lock() -> None:
    lock = Path("requirements.lock")
    lock.write_text("torch==0.0.1\nnumpy==0.0.1\nno-such-package==1.0\n")
    (found,) = packages()
    assert found.state == "warning"
    assert f"torch {torch.__version__.split('+')[0]} (locked: 0.0.1)" in found.said
    assert "no-such-package" not in found.said
    lock.write_text(f"Torch=={torch.__version__.split('+')[0]}\n")
    (found,) = packages()
    assert found == Finding("packages", "ok", "as in requirements.lock")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["numpy>=2", "no_such.Package[extra]>=1; python_version > '3'", "pytest; extra == 'dev'"]
    monkeypatch.setattr(machine, "requires", lambda _: asked)
    assert next(iter(packages())) == Finding(
        "packages", "failed", "not installed: no-such-package", "pip install -r requirements.lock"
    )


def test_what_the_parameters_ask_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert findings()["gpu"].state == "not used"
    found = findings("segmentation.train.device=cuda")["gpu"]
    assert found.state == "failed"
    assert found.said.startswith("segmentation.train.device: cuda, but torch ")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no driver of NVIDIA's" in findings("segmentation.train.device=cuda")["gpu"].said
    assert findings()["shared memory"].state == "not used"
    monkeypatch.setattr(machine, "SHARED", 1e9)
    found = findings("reconstruction.train.workers=2")["shared memory"]
    assert (found.state, "--shm-size" in found.mend) == ("failed", True)
    monkeypatch.setattr(machine, "ROOM", 1e9)
    assert findings()["room here"].state == "warning"


def test_bad_parameters_leave_the_rest(workdir: Path) -> None:
    Path("params.yaml").write_text("seed: -1\n")
    found = findings()
    assert found["parameters"].state == "failed"
    assert "mlflow" not in found
    assert found["python"].state == "ok"


def test_the_command_says_what_to_do_and_nothing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENT_KEY, SECRET)
    good = CliRunner().invoke(app, ["doctor"])
    assert good.exit_code == 0, good.output
    assert "ok        patient key: set\n" in good.output
    with server(MLFLOW, needs="Basic nothing") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("//", f"//runner:{SECRET}@"))
        monkeypatch.setenv("KFP_HOST", address)
        monkeypatch.setenv("KFP_TOKEN", SECRET)
        bad = CliRunner().invoke(app, ["doctor", "--json"])
    assert bad.exit_code == 1
    assert SECRET not in good.output + bad.output
    found = {each["name"]: each for each in map(json.loads, bad.output.splitlines())}
    assert found["mlflow"].keys() == {"name", "state", "said", "mend"}
    assert "***@127.0.0.1" in found["mlflow"]["said"]
