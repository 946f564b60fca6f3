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
from condswin.config.pools import load_pools
from condswin.config.reading import load_config
from condswin.config.root import Config
from pipelines.__main__ import app
from pipelines.schedules import read_schedules
from tests.infra.rendering import ROOT, Object, containers, of, one, pods, render

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
    (identity,) = yaml.safe_load(secrets["condswin-s3"]["s3.json"])["identities"]
    assert identity["credentials"] == [{"accessKey": "secret", "secretKey": "secret"}]
    assert len({*secrets["mlflow"].values(), secrets["mlflow-client"]["MLFLOW_TRACKING_PASSWORD"]}) == 6


def step_4(folder: Path, *more: str) -> Config:
    (block,) = blocks("4. Parameters")
    command = block[: block.index("\n$EDITOR")].replace(".venv/bin/condswin", "condswin")
    shutil.copytree(ROOT / "infra", folder / "infra", ignore=shutil.ignore_patterns("wheels", "secrets"))
    run(" ".join((command, *more)), folder)
    return load_config(folder / "params.yaml")


def test_without_a_gpu_and_slack_nothing_is_asked_of_them(tmp_path: Path) -> None:
    section = PAGE.split("\n## 4. Parameters\n", 1)[1].split("\n## ", 1)[0]
    config = step_4(tmp_path, *re.findall(r"^- no \w+: `(--set .*?)`", section, re.MULTILINE))
    assert config.cluster.notify.secret == ""
    assert config.task("reconstruction").train.device == "cpu"
    pools = load_pools(str(ROOT / config.cluster.pools))
    assert not any(pool.accelerator or pool.selector or pool.shm for pool in pools.pools.values())
    claim = one(render(ROOT / "infra/kustomize/laptop"), "PersistentVolumeClaim", "condswin-checkpoints")
    checkpoints = pools.of("train").checkpoints
    assert checkpoints is not None
    assert checkpoints.name("reconstruction", "swin") == claim["metadata"]["name"]


def test_schedules_doctor_and_search_fit_what_step_4_writes(tmp_path: Path) -> None:
    config = step_4(tmp_path)
    for schedule in read_schedules(ROOT / "infra/schedules.yaml").values():
        assert {*schedule.tasks} <= {*config.present}
    (doctor,) = [command for command in commands() if command[:2] == [".venv/bin/condswin", "doctor"]]
    assert load_config(tmp_path / "params.yaml", [doctor[-1]]).task("reconstruction").train.device == "auto"
    (search,) = [command for command in commands() if command[-2:-1] == ["--set"] and "search" in command]
    found = load_config(tmp_path / "params.yaml", [search[-1]]).cluster.secrets
    assert found == {**config.cluster.secrets, "search": {"CONDSWIN_STORAGE": "CONDSWIN_STORAGE"}}


def test_doctor_comes_after_the_exports_that_it_needs() -> None:
    before = PAGE[: PAGE.index(".venv/bin/condswin doctor")]
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD", "AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY",
                 "KFP_HOST", "CONDSWIN_PATIENT_KEY"):  # fmt: skip
        assert re.search(rf"^export .*\b{name}=", before, re.MULTILINE), name


def test_in_kubeflows_own_namespace_nothing_is_its_or_holds_for_it(tmp_path: Path) -> None:
    script = "".join(line for line in PAGE.splitlines(keepends=True) if line.startswith("sed "))
    shutil.copytree(ROOT / "infra/kustomize", tmp_path / "infra/kustomize")
    run(script, tmp_path)
    for name in ("laptop", "production"):
        objects = render(tmp_path / "infra/kustomize" / name)
        assert not [kind for kind in ("Namespace", "ResourceQuota", "LimitRange") if of(objects, kind)]
        assert {each["metadata"].get("namespace", "kubeflow") for each in objects} == {"kubeflow"}
        assert not re.search(
            r'namespace=\\*"condswin|-n condswin|namespace: condswin', yaml.safe_dump(objects, width=9999)
        )
        (priority,) = of(objects, "PriorityClass")
        assert priority["metadata"]["name"] == "condswin-service"


def test_what_races_is_waited_for() -> None:
    """After a Job is made or a server stopped, the next command waits; and only then logs are read."""
    lines = commands()
    made = [(number, line[line.index("job") + 1]) for number, line in enumerate(lines)
            if line[:3] == ["k", "create", "job"] and "--dry-run=client" not in line]  # fmt: skip
    assert {name for _, name in made} == {"backup-now", "restore-now", "upgrade"}
    made += [(number, "approve-3") for number, line in enumerate(lines) if "-f" in line and "--as=" in line[-1]]
    for number, name in made:
        assert lines[number + 1][:3] == ["k", "wait", "--for=condition=complete"], name
        assert lines[number + 1][-2:] == ["--timeout=30m", f"job/{name}"]
        assert lines[number + 2][:3] == ["k", "logs", f"job/{name}"]
    stops = [number for number, line in enumerate(lines) if line[-1:] == ["--replicas=0"]]
    assert len(stops) == 2
    for number in stops:
        assert lines[number + 1][:4] == ["k", "wait", "--for=delete", "pod"]
    upgrade = [line[1] for line in lines[stops[1] :] if line[0] in ("k", "kubectl")][:7]
    assert upgrade == ["scale", "wait", "set", "create", "wait", "logs", "apply"]


def test_embedded_scripts_are_python_and_yaml_and_no_secret_is_an_argument() -> None:
    scripts = re.findall(r"<<'END'\n(.*?)\nEND", PAGE, re.DOTALL)
    profile, users = scripts
    assert yaml.safe_load(profile)["metadata"]["name"] == "condswin"
    compile(users, "docs/cluster.md", "exec")
    assert not [command for command in commands() if command[0].endswith("python") and "-" in command[1:-1]]
    assert not re.search(r"> \S+\.(ini|json)\b", PAGE)


def test_step_4_gives_runs_what_is_in_these_secrets(secrets: dict[str, dict[str, str]], tmp_path: Path) -> None:
    config = step_4(tmp_path)
    assert config.tracking.uri == "http://mlflow.condswin.svc:5000"
    (endpoint,) = [each["data"]["AWS_ENDPOINT_URL"] for each in of(render(ROOT / "infra/kustomize/laptop"), "ConfigMap")
                   if "PUBLIC_HOST" in each["data"]]  # fmt: skip
    assert config.cluster.environment["AWS_ENDPOINT_URL"] == endpoint
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
    ((cronjob, container),) = re.findall(r"set image cronjob/(\S+) (\w+)=", PAGE)
    assert f"CronJob/{cronjob}/{container}" in dict(containers(objects))
    (command,) = re.findall(r"# command: \[(.*), mlflow-2026\d+T\d+Z\.dump\]", PAGE)
    assert command.split(", ") == dict(containers(objects))["CronJob/restore/get"]["command"]
    for account in re.findall(r"condswin-(?:runner|promoter)", PAGE):
        assert f"serviceaccount/{account}" in there
