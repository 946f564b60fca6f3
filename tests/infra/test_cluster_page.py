"""The commands of docs/cluster.md: as far as they need no cluster they are run, and the others are at least known."""

import base64
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from condswin import cli
from condswin.config.reading import load_config
from pipelines.__main__ import app
from tests.infra.rendering import ROOT, Object, containers, pods, render

PAGE = (ROOT / "docs/cluster.md").read_text()
#: Of kubectl what needs no server: Secrets are printed, and what is asked of one that is there is made up.
KUBECTL = """
k() {
  if [ "$1" = get ]; then printf c2VjcmV0; else kubectl --namespace condswin "$@" --dry-run=client -o yaml; echo ---; fi
}
"""


def blocks(heading: str) -> list[str]:
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def commands() -> list[list[str]]:
    """Each command line of the page, without comments and continuations."""
    text = re.sub(r"\\\n\s*", "", "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)))
    text = re.sub(r"<<'END'\n.*?\nEND", "", text, flags=re.DOTALL)
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def run(script: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "REGISTRY": "registry.example.org/team", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-eu"], input=script, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What step 2 makes: values by key and name."""
    folder = tmp_path_factory.mktemp("secrets")
    lines = "".join(blocks("2. Secrets")).splitlines()
    script = "\n".join(line for line in lines if not line.startswith(("alias", "kubectl")))
    made = [each for each in yaml.safe_load_all(run(KUBECTL + script, folder)) if each]
    assert not list(folder.iterdir())  # no file with a secret is left
    return {
        each["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in each["data"].items()}
        for each in made
    }


def wanted(objects: list[Object]) -> set[tuple[str, str]]:
    """Secrets and keys that pods refer to."""
    found = set()
    for _, container in containers(objects):
        for each in container.get("env", ()):
            if reference := each.get("valueFrom", {}).get("secretKeyRef"):
                found.add((reference["name"], reference["key"]))
    for _, template in pods(objects):
        for volume in template["spec"].get("volumes", ()):
            if "secret" in volume:
                found |= {(volume["secret"]["secretName"], item["key"]) for item in volume["secret"]["items"]}
    return found


@pytest.mark.parametrize("overlay", ["laptop", "production"])
def test_step_2_makes_every_secret_that_pods_refer_to(overlay: str, secrets: dict[str, dict[str, str]]) -> None:
    asked = wanted(render(ROOT / "infra/kustomize" / overlay))
    assert len(asked) >= 10
    assert not [(name, key) for name, key in asked if key not in secrets.get(name, {})]
    assert ".dockerconfigjson" in secrets["registry"]


def test_secrets_fit_together(secrets: dict[str, dict[str, str]]) -> None:
    password = secrets["postgres"]["password"]
    assert re.fullmatch("[0-9a-f]{48}", password)
    assert secrets["mlflow"]["database-uri"] == f"postgresql+psycopg2://mlflow:{password}@postgres:5432/mlflow"
    assert f"database_uri = {secrets['mlflow']['database-uri']}\n" in secrets["mlflow"]["basic_auth.ini"]
    (identity,) = yaml.safe_load(secrets["seaweedfs"]["s3.json"])["identities"]
    assert identity["credentials"] == [{"accessKey": "secret", "secretKey": "secret"}]
    assert len({*secrets["mlflow"].values(), secrets["mlflow-client"]["MLFLOW_TRACKING_PASSWORD"]}) == 6


def test_step_4_gives_runs_what_is_in_these_secrets(secrets: dict[str, dict[str, str]], tmp_path: Path) -> None:
    block = next(block for block in blocks("4. Parameters") if "params use" in block)
    command = block[: block.index("$EDITOR")].replace(".venv/bin/condswin", "condswin")
    shutil.copytree(ROOT / "infra", tmp_path / "infra", ignore=shutil.ignore_patterns("wheels", "secrets"))
    run(command, tmp_path)
    config = load_config(tmp_path / "params.yaml")
    assert config.tracking.uri == "http://mlflow.condswin.svc:5000"
    for name, variables in config.cluster.secrets.items():
        assert variables.keys() <= secrets[name].keys(), name
    given = {variable for variables in config.cluster.secrets.values() for variable in variables.values()}
    assert {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "CONDSWIN_PATIENT_KEY"} <= given


def options(group: Any, words: list[str]) -> tuple[list[str], set[str]]:
    """Names of subcommands, and options of the last."""
    command, names = group, []
    while hasattr(command, "commands") and words and words[0] in command.commands:
        names.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    return names, {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize(
    ("start", "group"),
    [((".venv/bin/condswin",), cli.app), ((".venv/bin/python", "-m", "pipelines"), app)],
)
def test_commands_and_their_options_are_known(start: tuple[str, ...], group: typer.Typer) -> None:
    found = 0
    for command in commands():
        words = [word for word in command if "=" not in word or word.startswith("-") or word[0] in "{'"]
        if tuple(words[: len(start)]) == start:
            names, known = options(typer.main.get_command(group), words[len(start) :])
            assert names, command
            assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, command
            found += 1
    assert found >= 3


def test_make_knows_its_words_and_files_are_there() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {command[1] for command in commands() if command[0] == "make"}
    assert asked
    assert asked <= known
    made = {"infra/sbom/", "infra/secrets"}
    for path in re.findall(r"\binfra/[\w./-]+", PAGE):
        assert any(path.startswith(each) for each in made) or (ROOT / path.rstrip(".")).exists(), path


def test_objects_that_commands_name_are_there() -> None:
    objects = [each for name in ("laptop", "production") for each in render(ROOT / "infra/kustomize" / name)]
    there = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in objects}
    for kind, name in re.findall(r"\b(cronjob|deployment|statefulset|service)/([a-z][\w-]*)", PAGE):
        assert f"{kind}/{name}" in there | {"service/ml-pipeline-ui"}, name
    for account in re.findall(r"condswin-(?:runner|promoter)", PAGE):
        assert f"serviceaccount/{account}" in there
