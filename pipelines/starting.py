"""Starts a run of a schedule from a pod."""

import os
from pathlib import Path

import kfp_server_api as kfp

from condswin import kubeflow
from pipelines.api import EXPERIMENT, Backend, BackendError, token_from

#: Where pods find the API, unless KFP_HOST says so.
HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
#: Where Kubeflow puts a pod's token for the API, unless KF_PIPELINES_SA_TOKEN_PATH says so.
TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")


def retrain(params: str, task: str, version: str, card: str) -> str:
    """Starts a run of the schedule for data that drifted, unless it was started for that version; returns its name.

    Raises:
        ConfigError: KFP_HOST is no address, or a token cannot be read or would be sent in the clear.
        BackendError: The API cannot be reached or refuses, or there is no such schedule.
    """
    schedule, run = kubeflow.retrain(params, task, version, card)
    if schedule:
        print(run if _start(schedule, run) else f"{run}: a run was started before")
    return run


def _start(schedule: str, run: str) -> bool:
    """Starts a run of what a recurring run does, once, whatever became of it; returns whether it was started."""
    named = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    token = token_from(Path(named) if named else TOKEN if TOKEN.is_file() else None)
    host, namespace = os.environ.get("KFP_HOST", HOST), os.environ.get("KFP_NAMESPACE", "")
    backend, name = Backend(host, token=token, namespace=namespace), os.environ.get("KFP_EXPERIMENT", EXPERIMENT)
    experiment = backend.experiment(name, create=False)
    recurring = backend.recurring(experiment) if experiment else []
    known = next((each for each in recurring if each.display_name == schedule), None)
    if known is None:
        raise BackendError(
            f"drift.schedule: {backend.host} has no recurring run {schedule!r} in the experiment {name!r}; make it by "
            "`python -m pipelines schedules apply`"
        )
    _, before = backend.start(
        kfp.V2beta1Run(
            display_name=run,
            experiment_id=experiment,
            pipeline_spec=known.pipeline_spec or None,
            pipeline_version_reference=known.pipeline_version_reference,
            runtime_config=known.runtime_config,
            service_account=known.service_account or None,
        ),
        again=False,
    )
    return not before
