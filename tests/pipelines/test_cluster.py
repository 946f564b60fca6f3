"""The commands that talk to a backend, against a stub that knows nothing but what the client's models declare."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from condswin.config.profiles import compose, write_config
from condswin.config.root import Config
from condswin.errors import CondswinError, ConfigError
from pipelines import api, cluster
from pipelines.__main__ import app
from pipelines.images import read_images, tasks_of
from pipelines.retraining import build
from pipelines.schedules import OURS, cron_problem
from tests.pipelines import kfp_stub
from tests.pipelines.kfp_stub import Stub, login, reset, serve, slow, status, well

ROOT = Path(__file__).parents[2]
#: Of the pipelines of these parameters.
IMAGE = "condswin:latest"
DIGEST = f"registry.example/condswin@sha256:{'a' * 64}"
CREATE, LIST = "run_service_create_run", "run_service_list_runs"
SCHEDULE = "recurring_run_service_create_recurring_run"
WEEKLY = {"cron": "0 0 2 * * sun", "tasks": ["reconstruction"]}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serve() as stub:
        yield stub
        assert stub.problems == []


@pytest.fixture(autouse=True)
def folder(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose image is recorded, and a client without patience."""
    config = compose(["demo", "tiny"], ["cluster.secrets={s3: {key: AWS_ACCESS_KEY_ID}}"])
    write_config(config, workdir / "params.yaml", comment="test")
    write(
        workdir / "infra/images.yaml",
        images={IMAGE: dict(zip(("name", "digest"), DIGEST.split("@"), strict=True))},
    )
    write(workdir / "infra/schedules.yaml", schedules={"weekly": WEEKLY})
    # Compiled once: most tests submit the same pipeline.
    monkeypatch.setitem(cluster.PIPELINES, "retraining", remembered)
    monkeypatch.setattr(api, "PAUSES", (0.05, 0.1, 0.2))
    monkeypatch.setattr(api, "TIMEOUT", (0.3, 0.3))
    for name in ("KFP_HOST", "KFP_TOKEN", "KFP_NAMESPACE", "KF_PIPELINES_SA_TOKEN_PATH", "KFP_SERVICE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    return workdir


_BUILT: dict[str, Any] = {}


def remembered(config: Config, tasks: tuple[str, ...]) -> Any:
    key = f"{tasks} {config.model_dump_json()}"
    if key not in _BUILT:
        _BUILT[key] = build(config, tasks)
    return _BUILT[key]


def write(path: Path, **values: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def pipelines(stub: Stub | str, *arguments: str, code: int = 0) -> str:
    host = stub if isinstance(stub, str) else stub.url
    done = CliRunner().invoke(app, [*arguments, "--host", host])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def fails(stub: Stub | str, *arguments: str) -> str:
    """The one line of a command that fails."""
    with pytest.raises(CondswinError) as error:
        pipelines(stub, *arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_version_is_tagged_with_the_digest_that_it_was_made_in(stub: Stub) -> None:
    pipelines(stub, "submit", "--task", "reconstruction")
    (run,) = stub.runs.values()
    (register,) = [
        task
        for task in tasks_of(run["pipeline_spec"]["pipeline_spec"])
        if task["componentRef"]["name"].startswith("comp-register")
    ]
    assert register["inputs"]["parameters"]["image"]["runtimeValue"]["constant"] == DIGEST


def test_a_run_may_take_nothing_from_earlier_ones(stub: Stub) -> None:
    pipelines(stub, "submit", "--task", "reconstruction")
    pipelines(stub, "submit", "--task", "reconstruction", "--no-cache")
    cached, anew = (tasks_of(run["pipeline_spec"]["pipeline_spec"]) for run in stub.runs.values())
    assert any("cachingOptions" in task for task in cached)
    assert not any("cachingOptions" in task for task in anew)


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["container"] for each in spec["pipeline_spec"]["deploymentSpec"]["executors"].values()]


def test_the_stub_refuses_what_the_models_do_not_have() -> None:
    assert len(kfp_stub.OPERATIONS) == 20
    good = {"display_name": "a", "trigger": {"cron_schedule": {"cron": "x"}}, "mode": "ENABLE", "no_catchup": True}
    assert not list(kfp_stub.problems_of("V2beta1RecurringRun", good, "body"))
    bad = {"max_concurrency": 1, "no_catchup": "true", "mode": "ON", "trigger": {"cron": "x"}, "name": "a"}
    assert len(list(kfp_stub.problems_of("V2beta1RecurringRun", bad, "body"))) == 5


def test_a_run_is_submitted_with_all_that_it_needs_and_once(stub: Stub) -> None:
    options = ("--service-account", "condswin-runner", "--label", "team=mri", "--label", "why=new-data")
    said = pipelines(stub, "submit", "--task", "reconstruction", *options)
    assert said == f"run_id-1\n{stub.url}/#/runs/details/run_id-1\n"
    (run,) = stub.runs.values()
    assert run["display_name"].startswith("reconstruction ")
    assert run["service_account"] == "condswin-runner"
    assert run["description"] == "team=mri why=new-data"
    assert stub.experiments[run["experiment_id"]]["display_name"] == "condswin"
    assert {container["image"] for container in containers(run["pipeline_spec"])} == {DIGEST}
    kubernetes = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert any("secretAsEnv" in executor for executor in kubernetes.values())
    again = pipelines(stub, "submit", "--task", "reconstruction", *options)
    assert again.startswith("run_id-1: an equal run is under way, no other was started\n")
    run["state"] = "SUCCEEDED"
    assert pipelines(stub, "submit", "--task", "reconstruction", *options).startswith("run_id-2\n")
    pipelines(stub, "submit", "--task", "reconstruction", *options, "--set", "seed=11")
    assert len({run["display_name"] for run in stub.runs.values()}) == 2


@pytest.mark.parametrize("recorded", [{}, {"condswin:gpu": {"name": "r/condswin", "digest": f"sha256:{'c' * 64}"}}])
def test_a_tag_is_refused_before_anything_is_asked(stub: Stub, folder: Path, recorded: dict[str, Any]) -> None:
    write(folder / "infra/images.yaml", images=recorded)
    said = f"{IMAGE}: a tag, which can move; name the image by digest, or push it with `make image"
    assert fails(stub, "submit").startswith(said)
    for command in ("diff", "apply"):
        assert fails(stub, "schedules", command).startswith(f"infra/schedules.yaml: schedules.weekly: {said}")
    assert fails(stub, "submit", "--images", "elsewhere.yaml").endswith("notes its digest in elsewhere.yaml")
    assert stub.requests == []


def test_recorded_digests_are_digests(folder: Path) -> None:
    write(folder / "infra/images.yaml", images={"condswin:cpu": {"name": "r/condswin", "digest": "sha256:abc"}})
    with pytest.raises(ConfigError, match=r"images\.condswin:cpu: 'r/condswin@sha256:abc' is not NAME@sha256"):
        read_images(folder / "infra/images.yaml")
    read_images(ROOT / "infra/images.yaml")


def test_namespace_and_token_are_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "token").write_text("Sesame\n")
    with serve(multi_user=True, token="Sesame") as stub:
        assert "answers 401" in fails(stub, "submit", "--namespace", "mri")
        said = fails(stub, "submit", "--token-file", "token")
        assert said.endswith("answers 400 Bad Request: Invalid input error: In multi-user mode, namespace is required")
        pipelines(stub, "submit", "--token-file", "token", "--namespace", "mri")
        assert next(iter(stub.experiments.values()))["namespace"] == "mri"
        monkeypatch.setenv("KFP_TOKEN", "Sesame")
        assert "run_id-1  PENDING" in pipelines(stub, "runs", "--namespace", "mri")
        assert stub.problems == []
    for host in ("http://kubeflow.example.org", "kubeflow", "https://u:Sesame@host"):
        said = fails(host, "runs")
        assert said.startswith("KFP_HOST")
        assert "Sesame" not in said
    (folder / "token").write_text("")
    assert fails("https://host", "runs", "--token-file", "token") == (
        "--token-file token: holds no token, which is one word; write it anew"
    )


def test_waiting_ends_with_the_run(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(["PENDING", "RUNNING", "RUNNING", "SUCCEEDED", "PENDING", "FAILED"])

    def next_state(_: float = 0) -> None:
        for run in stub.runs.values():
            if run["state"] not in ("SUCCEEDED", "FAILED"):
                run["state"] = next(states)

    monkeypatch.setattr(cluster, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(cluster.time, "sleep", next_state)
    monkeypatch.setattr(cluster._wait, "__defaults__", (next_state,))
    stub.plan("run_service_get_run", well, status(500), well, reset())
    assert pipelines(stub, "submit", "--wait").splitlines()[2:] == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert "run_id-2: FAILED; its tasks say more: http://" in fails(stub, "submit", "--wait")


def test_runs_are_listed_newest_first_and_canceled_once(stub: Stub) -> None:
    assert pipelines(stub, "runs") == ""
    for seed in range(5):
        pipelines(stub, "submit", "--task", "reconstruction", "--set", f"seed={seed}")
    listed = [json.loads(line) for line in pipelines(stub, "runs", "--newest", "3", "--json").splitlines()]
    assert [each["id"] for each in listed] == ["run_id-5", "run_id-4", "run_id-3"]
    assert len(pipelines(stub, "runs").splitlines()) == 5
    assert pipelines(stub, "cancel", "run_id-5") == "run_id-5: is being canceled\n"
    assert pipelines(stub, "cancel", "run_id-5") == "run_id-5: CANCELED already\n"
    assert "answers 404 Not Found: run_id-9 not found; check the id" in fails(stub, "cancel", "run_id-9")


@pytest.mark.parametrize("fault", [status(500), status(502), status(503), reset(), slow(then=False)])
def test_a_read_is_sent_again(stub: Stub, fault: kfp_stub.Fault) -> None:
    pipelines(stub, "submit", "--task", "reconstruction")
    stub.plan(LIST, fault, fault)
    assert "run_id-1  PENDING" in pipelines(stub, "runs")


@pytest.mark.parametrize("fault", [status(500), status(429), reset(), slow(then=False)])
def test_a_read_that_fails_again_and_again_is_one_line(stub: Stub, fault: kfp_stub.Fault) -> None:
    pipelines(stub, "submit", "--task", "reconstruction")
    stub.plan(LIST, *[fault] * 9)
    said = fails(stub, "runs")
    assert "4 times; check KFP_HOST" in said
    assert said.isprintable()


@pytest.mark.parametrize(
    "fault", [status(500, after=True), status(504, after=True), reset(after=True), slow(then=True)]
)
def test_a_creation_whose_answer_is_lost_is_found_and_not_doubled(stub: Stub, fault: kfp_stub.Fault) -> None:
    stub.plan(CREATE, fault)
    stub.plan("experiment_service_create_experiment", fault)
    stub.plan(SCHEDULE, fault)
    assert pipelines(stub, "submit", "--task", "reconstruction").startswith("run_id-1\n")
    assert pipelines(stub, "schedules", "apply").startswith("create weekly")
    assert (len(stub.experiments), len(stub.runs), len(stub.recurring)) == (1, 1, 1)
    assert (stub.count(CREATE), stub.count(SCHEDULE)) == (1, 1)


@pytest.mark.parametrize("fault", [status(500), reset(), slow(then=False)])
def test_a_creation_that_may_come_later_is_never_sent_again(stub: Stub, fault: kfp_stub.Fault) -> None:
    stub.plan(CREATE, fault)
    said = fails(stub, "submit", "--task", "reconstruction")
    assert "run the same command again" in said
    assert stub.count(CREATE) == 1
    assert pipelines(stub, "submit", "--task", "reconstruction").startswith("run_id-1\n")


def test_a_creation_that_was_turned_away_is_sent_again(stub: Stub) -> None:
    stub.plan(CREATE, status(503), status(429))
    assert pipelines(stub, "submit", "--task", "reconstruction").startswith("run_id-1\n")
    assert len(stub.runs) == 1


def test_what_is_no_backend_is_one_line(stub: Stub) -> None:
    stub.plan("experiment_service_list_experiments", login)
    assert "not the API of Kubeflow Pipelines (a login page?)" in fails(stub, "submit")
    said = fails("http://nobody.invalid", "runs")
    assert said.startswith("http://nobody.invalid: no connection (NameResolutionError), 4 times; check KFP_HOST")
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines", "runs", "--host", "kubeflow"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert ended.returncode == 1
    assert ended.stderr == "error: KFP_HOST (or --host): give an address like https://kubeflow.example.org/pipeline\n"


def test_schedules_are_reconciled(stub: Stub, folder: Path) -> None:
    foreign = {"display_name": "by-hand", "experiment_id": "experiment_id-1", "mode": "ENABLE", "status": "ENABLED"}
    pipelines(stub, "submit", "--task", "reconstruction")
    stub.recurring["x"] = {**foreign, "recurring_run_id": "x", "description": "somebody's"}
    assert pipelines(stub, "schedules", "diff", code=2).startswith("create weekly (0 0 2 * * sun)\nto be changed: 1; ")
    assert set(stub.recurring) == {"x"}
    assert pipelines(stub, "schedules", "apply") == "create weekly (0 0 2 * * sun)\n"
    made = stub.recurring["recurring_run_id-1"]
    assert made["no_catchup"] is True
    assert made["max_concurrency"] == "1"
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * sun"}}
    assert made["description"].startswith(OURS)
    assert {container["image"] for container in containers(made["pipeline_spec"])} == {DIGEST}
    for command in ("apply", "diff"):
        assert pipelines(stub, "schedules", command) == "nothing to do\n"
    assert stub.count(SCHEDULE) == 1

    write(folder / "infra/schedules.yaml", schedules={"weekly": {**WEEKLY, "enabled": False}})
    assert pipelines(stub, "schedules", "apply") == "disable weekly\n"
    assert made["status"] == "DISABLED"
    write(folder / "infra/schedules.yaml", schedules={"weekly": {**WEEKLY, "set": ["seed=11"]}, "other": WEEKLY})
    assert pipelines(stub, "schedules", "apply").splitlines() == [
        "replace weekly (0 0 2 * * sun)", "create other (0 0 2 * * sun)"]  # fmt: skip
    assert "recurring_run_id-1" not in stub.recurring
    assert pipelines(stub, "schedules", "diff") == "nothing to do\n"
    write(folder / "infra/schedules.yaml", schedules={})
    said = pipelines(stub, "schedules", "apply")
    assert said == "remove weekly (not in the file)\nremove other (not in the file)\n"
    assert set(stub.recurring) == {"x"}


@pytest.mark.parametrize(
    "changed",
    [{"no_catchup": False}, {"max_concurrency": "10"}, {"trigger": {"cron_schedule": {"cron": "0 * * * * *"}}}],
)
def test_what_somebody_changed_on_the_backend_is_put_right(stub: Stub, changed: dict[str, Any]) -> None:
    pipelines(stub, "schedules", "apply")
    next(iter(stub.recurring.values())).update(changed)
    assert pipelines(stub, "schedules", "apply").startswith("replace weekly")
    assert len(stub.recurring) == 1


def test_other_pipelines_are_scheduled_too(stub: Stub, folder: Path) -> None:
    write(folder / "infra/schedules.yaml", schedules={"drift": {**WEEKLY, "pipeline": "drift"}})
    assert pipelines(stub, "schedules", "apply") == "create drift (0 0 2 * * sun)\n"
    (made,) = stub.recurring.values()
    assert made["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "drift"
    write(folder / "infra/schedules.yaml", schedules={"drift": {**WEEKLY, "pipeline": "drifft"}})
    assert "schedules.drift: no pipeline 'drifft'; did you mean 'drift'?" in fails(stub, "schedules", "diff")


def test_a_schedule_that_is_there_twice_loses_one_and_a_foreign_one_is_not_touched(stub: Stub) -> None:
    pipelines(stub, "schedules", "apply")
    (made,) = stub.recurring.values()
    stub.recurring["twin"] = {**made, "recurring_run_id": "twin"}
    assert pipelines(stub, "schedules", "apply") == "remove weekly (there twice)\n"
    (left,) = stub.recurring.values()
    left["description"] = "mine"
    assert "a recurring run 'weekly' was not made by this command" in fails(stub, "schedules", "apply")
    assert list(stub.recurring) == [left["recurring_run_id"]]


@pytest.mark.parametrize("cron", ["0 0 2 * * *", "0 30 2,14 1-15/2 jan-jun ?", "59 59 23 31 12 6"])
def test_cron_lines_of_six_fields(cron: str) -> None:
    assert cron_problem(cron) is None


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 2 * * *", "5 fields; the backend takes six"),
        ("@daily", "1 fields"),
        ("0 60 2 * * *", "minute: '60'"),
        ("0 0 24 * * *", "hour: '24'"),
        ("0 0 2 0 * *", "day of month: '0'"),
        ("0 0 2 * * 7", "day of week: '7'"),
        ("0 0 2 * * fry", "day of week: 'fry'"),
        ("0 0 20-4 * * *", "ends before it begins"),
        ("0 0 */0 * * *", "step"),
        ("* * 2 * * *", "more than once an hour"),
        ("0 */5 2 * * *", "more than once an hour"),
        ("0 0 2-3-4 * * *", "hour: '2-3-4'"),
    ],
)
def test_other_cron_lines_are_refused(stub: Stub, folder: Path, cron: str, said: str) -> None:
    write(folder / "infra/schedules.yaml", schedules={"weekly": {**WEEKLY, "cron": cron}})
    message = fails(stub, "schedules", "diff")
    assert message.startswith(f"infra/schedules.yaml: schedules.weekly.cron: {cron!r}: ")
    assert said in message


def test_the_committed_schedules_are_good(stub: Stub) -> None:
    said = pipelines(stub, "schedules", "diff", "--file", str(ROOT / "infra/schedules.yaml"), code=2)
    assert said.splitlines()[:-1] == ["create reconstruction-weekly (0 0 2 * * sun)"]
