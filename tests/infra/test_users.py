"""Users that are there already, whom infra/users.py leaves or mends; tests/services has it on a real server."""

import runpy

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS

from tests.infra.rendering import ROOT


class Server:
    """MLflow's users, with their passwords."""

    def __init__(self, **users: str) -> None:
        self.users = users

    def create_user(self, name: str, password: str) -> None:
        if name in self.users:
            raise MlflowException(f"User (username={name}) already exists", RESOURCE_ALREADY_EXISTS)
        self.users[name] = password

    def update_user_password(self, name: str, password: str) -> None:
        assert name in self.users
        self.users[name] = password


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server(**{"j.doe": "hers"})
    monkeypatch.setattr("mlflow.server.get_app_client", lambda app, address: server)
    monkeypatch.setattr("sys.argv", ["users.py", "j.doe", "r.roe"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    monkeypatch.setenv("RUNNER", "of the Secret")
    return server


def test_runner_gets_the_password_of_the_secret_and_people_keep_theirs(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.users["runner"] = "of another installation"
    runpy.run_path(str(ROOT / "infra/users.py"))
    assert server.users["runner"] == "of the Secret"
    assert server.users["j.doe"] == "hers"
    assert capsys.readouterr().out.splitlines() == [
        "runner: is there already, with the password of RUNNER",
        "j.doe: is there already",
        f"r.roe: made, with the password {server.users['r.roe']}",
    ]


def test_without_a_password_no_user_is_made(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER", "")
    with pytest.raises(SystemExit, match="RUNNER: is to hold the password"):
        runpy.run_path(str(ROOT / "infra/users.py"))
    assert server.users == {"j.doe": "hers"}
