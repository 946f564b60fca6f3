"""Commands of docs/how-to/cluster.md: as far as they need no cluster they are run, the others are at least known."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from kubernetes.utils import parse_quantity

from condswin import cli
from condswin.config.pools import load_pools
from condswin.config.reading import load_config
from condswin.config.root import Config
from condswin.kubeflow.given import generated
from pipelines.__main__ import app
from pipelines.schedules import cron_problem, read_schedules
from tests.infra.page import PAGE, SETTINGS, blocks, commands, run
from tests.infra.rendering import ROOT, containers, of, one, pods, render


def written(heading: str, folder: Path, *more: str, overlay: str = "laptop") -> Config:
    """The parameters that the command of a step writes."""
    (command,) = re.findall(r"^\.venv/bin/(condswin params use (?:\\\n|.)*)$", "".join(blocks(heading)), re.MULTILINE)
    shutil.copytree(
        ROOT / "infra", folder / "infra", ignore=shutil.ignore_patterns("wheels", "secrets"), dirs_exist_ok=True
    )
    settings = folder / "infra/cluster.sh"
    settings.write_text(SETTINGS.replace("OVERLAY=laptop", f"OVERLAY={overlay}"))
    run(". infra/cluster.sh\n" + " ".join((command, *more)), folder)
    return load_config(folder / "params.yaml")


def test_a_first_run_needs_no_gpu_no_data_and_no_slack(tmp_path: Path) -> None:
    (no_slack,) = re.findall(r"^- Without Slack add `(--set .*?)`", PAGE, re.MULTILINE)
    config = written("4. Parameters", tmp_path, no_slack)
    assert config.cluster.notify.secret == ""
    assert config.cluster.notify.ui == "http://localhost:8080"
    assert generated(config, "reconstruction")
    assert config.task("reconstruction").train.device == "cpu"
    pools = load_pools(str(ROOT / config.cluster.pools))
    assert not any(pool.accelerator or pool.selector or pool.shm for pool in pools.pools.values())
    assert {pool.image for pool in pools.pools.values()} == {"condswin:cpu"}
    claim = one(render(ROOT / "infra/kustomize/laptop"), "PersistentVolumeClaim", "condswin-checkpoints")
    checkpoints = pools.of("train").checkpoints
    assert checkpoints is not None
    assert checkpoints.name("reconstruction", "swin") == claim["metadata"]["name"]


def test_the_room_that_a_laptop_needs_is_what_manifests_and_pools_ask_for() -> None:
    objects = render(ROOT / "infra/kustomize/laptop")
    sets = of(objects, "StatefulSet")
    services = [template["spec"] for _, template in pods(of(objects, "Deployment") + sets)]
    asked = [each["resources"]["requests"] for spec in services for each in spec["containers"]]
    cpus, memory = (sum(parse_quantity(each[kind]) for each in asked) for kind in ("cpu", "memory"))
    claims = of(objects, "PersistentVolumeClaim") + [
        each for set_ in sets for each in set_["spec"]["volumeClaimTemplates"]
    ]
    volumes = sum(parse_quantity(each["spec"]["resources"]["requests"]["storage"]) for each in claims)
    task = load_pools(str(ROOT / "infra/pools-laptop.yaml")).of("train")
    said = " ".join(PAGE.split())
    assert f"services ask for {cpus.normalize()} CPUs, {(memory / 2**30).normalize()} GiB of memory" in said
    assert f"and {volumes // 2**30} GiB of volumes" in said
    assert f"each task of a run for {task.cpu.request} CPU and {task.memory.request.removesuffix('Gi')} GiB" in said


def test_own_data_run_on_any_gpu_once_the_page_s_edit_was_made(tmp_path: Path) -> None:
    config = written("8. Your data and GPUs", tmp_path)
    assert config.task("reconstruction").source == "s3://condswin/fastmri"
    assert config.task("reconstruction").train.device == "cuda"
    (edit,) = [line for line in "".join(blocks("8. Your data and GPUs")).splitlines() if line.startswith("sed ")]
    run(edit, tmp_path)
    pool = load_pools(str(tmp_path / config.cluster.pools)).of("train")
    assert pool.accelerator is not None
    assert not pool.selector
    assert all(wish.weight is not None for wish in pool.affinity)


def test_options_of_step_4_hold_in_step_8_when_they_are_given_again_as_the_page_says(tmp_path: Path) -> None:
    (no_slack,) = re.findall(r"^- Without Slack add `(--set .*?)`", PAGE, re.MULTILINE)
    (volumes,) = re.findall(r"`(--set 'cluster\.volumes=[^`]*)`", PAGE)
    options = (no_slack, volumes)
    before = written("4. Parameters", tmp_path, *options).cluster
    after = written("8. Your data and GPUs", tmp_path, *options).cluster
    assert (after.notify, after.volumes) == (before.notify, before.volumes)
    assert before.notify.secret == ""
    # Without them they are undone, so the page says which.
    assert written("8. Your data and GPUs", tmp_path).cluster.notify.secret != ""
    text = PAGE.split("\n## 8. Your data and GPUs\n", 1)[1].partition("condswin params use")[0]
    assert "the options that you added in step 4" in text
    assert all(f"`{key}`" in text for key in ("cluster.notify.secret", "cluster.volumes", "AWS_CA_BUNDLE"))


def test_what_this_machine_has_in_its_environment_reaches_no_pod(tmp_path: Path) -> None:
    config = written("4. Parameters", tmp_path)
    (tmp_path / "compiled").mkdir()
    run(
        f". {ROOT}/infra/cluster.sh\nexport MLFLOW_TRACKING_USERNAME=admin\n"
        f"python -m pipelines compile --params {tmp_path}/params.yaml --out {tmp_path}/compiled",
        tmp_path,
    )
    made = (tmp_path / "compiled/reconstruction.yaml").read_text()
    assert config.tracking.uri in made
    assert "http://condswin-s3:8333" in made
    assert "localhost:5000" not in made
    assert "localhost:8333" not in made
    assert "admin" not in made


def test_schedules_doctor_and_search_fit_what_step_8_writes(tmp_path: Path) -> None:
    config = written("8. Your data and GPUs", tmp_path)
    for schedule in read_schedules(ROOT / "infra/schedules.yaml").values():
        assert {*schedule.tasks} <= {*config.present}
    (doctor,) = [command for command in commands() if command[1:3] == ["doctor", "--set"]]
    assert load_config(tmp_path / "params.yaml", [doctor[-1]]).task("reconstruction").train.device == "auto"
    (search,) = [command for command in commands() if command[-2:-1] == ["--set"] and "search" in command]
    found = load_config(tmp_path / "params.yaml", [search[-1]]).cluster.secrets
    assert found == {**config.cluster.secrets, "search": {"CONDSWIN_STORAGE": "CONDSWIN_STORAGE"}}


@pytest.mark.parametrize("overlay", ["laptop", "production"])
def test_settings_are_those_of_the_overlay_and_runs_credentials_come_before_what_needs_them(
    overlay: str, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "infra/kustomize", tmp_path / "infra/kustomize")
    (tmp_path / "infra/cluster.sh").write_text(SETTINGS.replace("OVERLAY=laptop", f"OVERLAY={overlay}"))
    lines = run(". infra/cluster.sh\nk() { printf c2VjcmV0; }\nas_admin; as_runner; env", tmp_path).splitlines()
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    assert (said["MLFLOW_TRACKING_USERNAME"], said["MLFLOW_TRACKING_PASSWORD"]) == ("runner", "secret")
    assert said["CONDSWIN_PATIENT_KEY"] == said["AWS_SECRET_ACCESS_KEY"] == "secret"
    outside = {"laptop": ("http://localhost:5000", "http://localhost:8333"),
               "production": ("https://mlflow.example.org", "https://s3.example.org")}[overlay]  # fmt: skip
    assert (said["MLFLOW_TRACKING_URI"], said["AWS_ENDPOINT_URL"]) == outside
    (settings,) = [each["data"] for each in of(render(tmp_path / "infra/kustomize" / overlay), "ConfigMap")
                   if "PUBLIC_HOST" in each["data"]]  # fmt: skip
    assert yaml.safe_load(said["IN_PODS"]) == {
        name: settings[name] for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
    }
    for step in ("5. A first run", "8. Your data and GPUs"):
        section = "".join(blocks(step))
        assert 0 < section.index("as_runner && ") < section.index("condswin doctor") < section.index("submit")


def test_one_server_makes_the_tables() -> None:
    """The first time; the second server comes with the second `apply`."""
    (first,) = re.findall(r"\| (sed 's/\^  replicas.*?') \|", PAGE)
    kubectl = Path(sys.executable).with_name("kubectl")
    made = run(f"{kubectl} kustomize {ROOT}/infra/kustomize/production | {first}", ROOT)
    objects = list(yaml.safe_load_all(made))
    assert one(objects, "Deployment", "mlflow")["spec"]["replicas"] == 1
    unchanged = render(ROOT / "infra/kustomize/production")
    one(unchanged, "Deployment", "mlflow")["spec"]["replicas"] = 1
    assert objects == unchanged


def test_without_root_on_its_storage_the_job_alone_is_taken_out(tmp_path: Path) -> None:
    (edit,) = re.findall(r"\(`(sed -i [^`]*checkpoints.yaml)`\)", PAGE)
    shutil.copytree(ROOT / "infra/kustomize", tmp_path / "infra/kustomize")
    before = render(tmp_path / "infra/kustomize/production")
    run(edit, tmp_path)
    after = render(tmp_path / "infra/kustomize/production")
    assert [each for each in before if each not in after] == [one(before, "Job", "checkpoints")]
    assert len(of(after, "PersistentVolumeClaim")) == 1


def test_in_kubeflows_own_namespace_nothing_is_its_or_holds_for_it(tmp_path: Path) -> None:
    """With what trainings of several nodes take, too, in one of the overlays."""
    script = "export OVERLAY=production NAMESPACE=kubeflow\n"
    script += "".join(line for line in PAGE.splitlines(keepends=True) if line.startswith("sed -i"))
    shutil.copytree(ROOT / "infra/kustomize", tmp_path / "infra/kustomize")
    shutil.copy(ROOT / "infra/pools.yaml", tmp_path / "infra")
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
        assert len(of(objects, "TrainingRuntime")) == (name == "production")


def test_a_namespace_of_another_name_is_made_under_it_and_one_of_others_is_left_alone(tmp_path: Path) -> None:
    block = next(block for block in blocks("2. Secrets") if "namespace.yaml" in block)
    command = block.partition(" | kubectl apply")[0]
    edits = [line for line in PAGE.splitlines(keepends=True) if line.startswith("sed -i")]
    (name,) = [line for line in edits if "namespace: condswin" in line]
    shutil.copytree(ROOT / "infra/kustomize", tmp_path / "infra/kustomize")
    run(f"NAMESPACE=mri; {name}", tmp_path)
    made = run(f"NAMESPACE=mri; {command}", tmp_path)
    objects = render(tmp_path / "infra/kustomize/laptop")
    assert yaml.safe_load(made)["metadata"]["name"] == of(objects, "Namespace")[0]["metadata"]["name"] == "mri"
    assert {each["metadata"].get("namespace", "mri") for each in objects} == {"mri"}
    theirs = [line for line in edits if "/^- namespace.yaml$/d" in line]
    assert len(theirs) == 2  # of a profile, and of a namespace that others use too
    for line in theirs:
        shutil.copy(ROOT / "infra/kustomize/base/kustomization.yaml", tmp_path / "infra/kustomize/base")
        assert run(f"NAMESPACE=mri; {line}\n{command} || true", tmp_path) == ""


def test_a_new_version_comes_to_images_first_and_to_schedules_last() -> None:
    lines = [line.split("#")[0].strip() for line in "".join(blocks("A new version of condswin")).splitlines()]
    order = ("git pull", "make image", "kubectl apply", "make pipelines", "pipelines submit", "schedules apply")
    places = [next(number for number, line in enumerate(lines) if word in line) for word in order]
    assert places == sorted(places)
    assert lines[-1].endswith("schedules apply")
    assert sum("make image" in line for line in lines) == 2


def test_a_line_that_fires_soon_is_one_that_the_backend_takes(tmp_path: Path) -> None:
    (command,) = re.findall(r"`(date [^`]*)`", PAGE)
    assert cron_problem(run(command, tmp_path).strip()) is None


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


def test_embedded_objects_are_yaml_and_their_pods_end_beside_istio() -> None:
    scripts = re.findall(r"<<'END'\n(.*?)\nEND", PAGE, re.DOTALL)
    profile, tidy = scripts
    labels = yaml.safe_load(tidy)["metadata"]["labels"]
    assert labels["sidecar.istio.io/inject"] == "false"
    policies = yaml.safe_load_all((ROOT / "infra/kustomize/trainer/network.yaml").read_text())
    (closed,) = [each["spec"] for each in policies if each["metadata"]["name"] == "tidy"]
    assert closed["podSelector"]["matchLabels"].items() <= labels.items()
    assert (closed["ingress"], closed["egress"], closed["policyTypes"]) == ([], [], ["Ingress", "Egress"])
    assert yaml.safe_load(profile)["metadata"]["name"] == "condswin"


@pytest.mark.parametrize("step", ["4. Parameters", "8. Your data and GPUs"])
def test_runs_get_what_is_in_these_secrets(step: str, secrets: dict[str, dict[str, str]], tmp_path: Path) -> None:
    config = written(step, tmp_path)
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
    known = set(re.findall(r"^([./a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
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
