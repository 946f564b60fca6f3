"""The commands that talk to a Kubeflow backend: submit, runs, cancel, schedules."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import kfp_server_api as kfp
import typer
from google.protobuf.json_format import MessageToDict

from condswin.config.reading import load_config
from condswin.errors import CondswinError, ConfigError
from condswin.files import fingerprint
from condswin.plain import plain
from condswin.suggest import unknown
from pipelines.api import ACTIVE, EXPERIMENT, Backend, token_from
from pipelines.catalogue import PIPELINES, Pipeline
from pipelines.common import Params, Settings, Tasks, chosen
from pipelines.images import IMAGES, pinned, read_images, tasks_of
from pipelines.schedules import SCHEDULES, Change, Schedule, changes, read_schedules, wanted

Host = Annotated[str, typer.Option(help="Address of Kubeflow Pipelines.", envvar="KFP_HOST")]
Namespace = Annotated[str, typer.Option(help="Of a backend with users.", envvar="KFP_NAMESPACE")]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="Holds the token; without one, KFP_TOKEN does.", envvar="KF_PIPELINES_SA_TOKEN_PATH"),
]
Experiment = Annotated[str, typer.Option(help="Kubeflow's experiment.")]
Account = Annotated[str, typer.Option(help="Service account of the pods.", envvar="KFP_SERVICE_ACCOUNT")]
Images = Annotated[Path, typer.Option(help="Digests of images.")]
Schedules = Annotated[Path, typer.Option("--file", help="The schedules.")]
#: Seconds between two looks at a run that is waited for.
LOOK_EVERY = 15.0

schedules_app = typer.Typer(no_args_is_help=True, help="Recurring runs, as infra/schedules.yaml has them.")


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(submit)
    app.command()(runs)
    app.command()(cancel)
    app.add_typer(schedules_app, name="schedules")


def submit(
    host: Host,
    namespace: Namespace = "",
    token_file: TokenFile = None,
    service_account: Account = "",
    experiment: Experiment = EXPERIMENT,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Kept in the run's description; may be repeated.")
    ] = None,
    cache: Annotated[
        bool, typer.Option(help="Take what earlier runs made of the same; without, what stopped a run is tried anew.")
    ] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Until it ends; status 1 unless it succeeds.")] = False,
    images: Images = IMAGES,
    pipeline: Pipeline = "retraining",
    task: Tasks = None,
    params: Params = Path("params.yaml"),
    settings: Settings = None,
) -> None:
    """Start a run on a Kubeflow backend (2.14 or newer), unless an equal one is under way; print its id and link.

    Example: KFP_HOST=http://localhost:8080 python -m pipelines submit --task reconstruction --wait
    """
    backend = Backend(host, token=token_from(token_file), namespace=namespace)
    labels = dict(map(_label, label or []))
    name, spec = _compiled(pipeline, params, settings, task, images, cache=cache)
    key = fingerprint([spec, service_account])
    run, under_way = backend.start(
        kfp.V2beta1Run(
            display_name=f"{name} {key[:12]}",
            description=" ".join(f"{one}={labels[one]}" for one in sorted(labels)),
            experiment_id=backend.experiment(experiment),
            pipeline_spec=spec,
            runtime_config=kfp.V2beta1RuntimeConfig(parameters={}),
            service_account=service_account or None,
        )
    )
    print(run.run_id + (": an equal run is under way, no other was started" if under_way else ""))
    print(backend.link(run.run_id), flush=True)
    if wait:
        _wait(backend, run.run_id)


def runs(
    host: Host,
    namespace: Namespace = "",
    token_file: TokenFile = None,
    experiment: Experiment = EXPERIMENT,
    newest: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """List runs, newest first.

    Example: python -m pipelines runs --newest 5
    """
    backend = Backend(host, token=token_from(token_file), namespace=namespace)
    found = backend.experiment(experiment, create=False)
    for run in backend.runs(found, newest=newest) if found else []:
        line = {
            "id": run.run_id,
            "state": run.state or "PENDING",
            "created": run.created_at.isoformat() if run.created_at else "",
            "name": run.display_name,
            "labels": run.description or "",
            "link": backend.link(run.run_id),
        }
        print(json.dumps(line) if as_json else "  ".join(plain(value) for value in line.values() if value))


def cancel(
    run_id: Annotated[str, typer.Argument(help="As `runs` and `submit` print it.")],
    host: Host,
    namespace: Namespace = "",
    token_file: TokenFile = None,
) -> None:
    """End a run.

    Example: python -m pipelines cancel 2f1b7f36-5d0c-4c39-9a3e-6d1c9a1f5f0e
    """
    backend = Backend(host, token=token_from(token_file), namespace=namespace)
    state = backend.run(run_id).state
    if state not in ACTIVE:
        print(f"{run_id}: {state} already")
        return
    backend.cancel(run_id)
    print(f"{run_id}: is being canceled")


@schedules_app.command()
def diff(
    host: Host,
    namespace: Namespace = "",
    token_file: TokenFile = None,
    service_account: Account = "",
    experiment: Experiment = EXPERIMENT,
    images: Images = IMAGES,
    file: Schedules = SCHEDULES,
) -> None:
    """Say what `apply` would do, and do nothing; status 2 if that is anything.

    Example: python -m pipelines schedules diff
    """
    planned = _planned(file, images)
    backend = Backend(host, token=token_from(token_file), namespace=namespace)
    found = _changes(backend, backend.experiment(experiment, create=False) or "", service_account, planned)
    for change in found:
        print(_said(change))
    print(f"to be changed: {len(found)}; `schedules apply` does it" if found else "nothing to do")
    if found:
        sys.exit(2)


@schedules_app.command()
def apply(
    host: Host,
    namespace: Namespace = "",
    token_file: TokenFile = None,
    service_account: Account = "",
    experiment: Experiment = EXPERIMENT,
    images: Images = IMAGES,
    file: Schedules = SCHEDULES,
) -> None:
    """Make the backend's recurring runs those of the file; a second time there is nothing to do.

    Example: python -m pipelines schedules apply --service-account condswin-runner
    """
    planned = _planned(file, images)
    backend = Backend(host, token=token_from(token_file), namespace=namespace)
    found = _changes(backend, backend.experiment(experiment) or "", service_account, planned)
    for change in found:
        for action in change.actions:
            action()
        print(_said(change), flush=True)
    if not found:
        print("nothing to do")


def _planned(file: Path, images: Path) -> list[tuple[str, Schedule, dict[str, Any]]]:
    """Each schedule with its pipeline: what cannot be run is refused before anything is asked of a backend."""
    planned = []
    for name, schedule in read_schedules(file).items():
        try:
            _, spec = _compiled(schedule.pipeline, Path(schedule.params), schedule.set, schedule.tasks, images)
        except (CondswinError, typer.BadParameter) as error:
            raise ConfigError(f"{file}: schedules.{name}: {error}") from None
        planned.append((name, schedule, spec))
    return planned


def _changes(
    backend: Backend, experiment: str, account: str, planned: list[tuple[str, Schedule, dict[str, Any]]]
) -> list[Change]:
    runs = [wanted(*each, experiment=experiment, service_account=account) for each in planned]
    return changes(backend, experiment, runs)


def _said(change: Change) -> str:
    return f"{change.what} {change.name}" + (f" ({change.why})" if change.why else "")


def _compiled(
    called: str,
    params: Path,
    settings: list[str] | None,
    tasks: list[str] | None,
    images: Path,
    *,
    cache: bool = True,
) -> tuple[str, dict[str, Any]]:
    """A pipeline's name, and what the backend takes: every image by digest, beside what Kubernetes is asked for."""
    if called not in PIPELINES:
        raise ConfigError(unknown("pipeline", called, PIPELINES))
    config = load_config(params, settings or [])
    pipeline = PIPELINES[called](config, chosen(config, tasks))
    spec = pinned(MessageToDict(pipeline.pipeline_spec), read_images(images), origin=images)
    for task in () if cache else tasks_of(spec):
        task.pop("cachingOptions", None)
    platform = MessageToDict(pipeline.platform_spec)
    return pipeline.name, {"pipeline_spec": spec, "platform_spec": platform} if platform else spec


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value) or any(char.isspace() or not char.isprintable() for char in text):
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE, without spaces", param_hint="--label")
    return key, value


def _wait(backend: Backend, run_id: str, sleep: Callable[[float], None] = time.sleep) -> None:
    seen = None
    while True:
        run = backend.run(run_id)
        if run.state != seen:
            seen = run.state
            print(seen or "PENDING", flush=True)
        if seen not in ACTIVE:
            break
        sleep(LOOK_EVERY)
    if seen != "SUCCEEDED":
        why = f": {plain(run.error.message, 200)}" if run.error and run.error.message else ""
        raise CondswinError(f"{run_id}: {seen}{why}; its tasks say more: {backend.link(run_id)}")
