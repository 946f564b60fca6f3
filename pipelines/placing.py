"""Tasks as a cluster runs them: the one place where a pool is applied to a task."""

from kfp import kubernetes
from kfp.dsl import pipeline_task

from condswin.config.names import TaskName
from condswin.config.pools import Pool, Pools
from condswin.config.root import Config

#: Where pods that train mount the volume for checkpoints.
CHECKPOINTS = "/checkpoints"
#: Label of every pod, for policies and quotas.
LABEL = "condswin/pool"
# Steps that end as they must: another try would end the same way, or tell people twice.
_ONCE = ("verdict", "notify")
# Steps that read a source, which may lie on a volume.
_READING = ("resolve", "ingest", "predict")


def place(
    task: pipeline_task.PipelineTask, step: str, pools: Pools, config: Config, *, cached: bool
) -> pipeline_task.PipelineTask:
    """Puts a task into its step's pool, with the environment that all tasks have.

    Args:
        task: A task.
        step: Its component.
        pools: Which pool that runs in.
        config: Names environment, Secrets and the MLflow server.
        cached: Take the outputs of an earlier task that was asked the same.
    """
    pool = pools.of(step)
    task.set_container_image(pool.image).set_caching_options(cached)
    _ask(task, pool)
    kubernetes.add_pod_label(task, LABEL, pools.name_of(step))
    if pool.retry.count and step not in _ONCE:
        # By default the backend tries again at once, and ends what takes longer than an hour from the start of the
        # first try on, all tries together (kubeflow/pipelines#14245, #13452): trainings take days.
        task.set_retry(
            pool.retry.count,
            backoff_duration=f"{pool.retry.backoff}s",
            backoff_factor=pool.retry.factor,
            backoff_max_duration="4 weeks",
        )
    if step in _ONCE:
        return task
    for variable, value in environment(config).items():
        task.set_env_variable(variable, value)
    for secret, variables in config.cluster.secrets.items():
        kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env=variables)
    for claim, folder in config.cluster.volumes.items() if step in _READING else ():
        kubernetes.mount_pvc(task, pvc_name=claim, mount_path=folder)
    return task


def environment(config: Config) -> dict[str, str]:
    """What everything that runs on the cluster has in its environment, beside Secrets."""
    tracking = {"MLFLOW_TRACKING_URI": config.tracking.uri, "MLFLOW_EXPERIMENT_NAME": config.tracking.experiment}
    return {**tracking, **config.cluster.environment}


def keep_checkpoints(task: pipeline_task.PipelineTask, pool: Pool, name: TaskName, variant: str) -> None:
    """Mounts the volume on which a training keeps checkpoints, if its pool has one."""
    if checkpoints := pool.checkpoints:
        kubernetes.mount_pvc(task, pvc_name=checkpoints.name(name, variant), mount_path=CHECKPOINTS)


def _ask(task: pipeline_task.PipelineTask, pool: Pool) -> None:
    task.set_cpu_request(pool.cpu.request).set_cpu_limit(pool.cpu.limit)
    task.set_memory_request(pool.memory.request).set_memory_limit(pool.memory.limit)
    # Of the pod, which each try has anew.
    kubernetes.set_timeout(task, pool.timeout)
    if pool.accelerator:
        task.set_accelerator_type(pool.accelerator.type).set_accelerator_limit(pool.accelerator.count)
    if pool.shm:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=pool.shm)
    if pool.scratch:
        kubernetes.empty_dir_mount(task, "scratch", "/tmp", size_limit=pool.scratch)
    for label, value in pool.selector.items():
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    terms = [
        (wish.weight, {"key": wish.key, "operator": wish.operator, "values": wish.values}) for wish in pool.affinity
    ]
    # All that nodes must have in one term: Kubernetes takes a node that fits any of several.
    if musts := [term for weight, term in terms if weight is None]:
        kubernetes.add_node_affinity(task, match_expressions=musts)
    for weight, term in terms:
        if weight is not None:
            kubernetes.add_node_affinity(task, match_expressions=[term], weight=weight)
    for taint in pool.tolerations:
        kubernetes.add_toleration(
            task,
            key=taint.key or None,
            operator=taint.operator,
            value=taint.value or None,
            effect=taint.effect or None,
        )
