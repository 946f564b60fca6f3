"""The retraining pipeline: raw files to a promoted model, for one task or both."""

import json

from kfp import dsl, kubernetes
from kfp.dsl import base_component, pipeline_task

import components
from components.compare import VARIANTS
from condswin.config.names import TaskName
from condswin.config.parts import part
from condswin.config.root import Config
from condswin.errors import ConfigError
from condswin.kubeflow import code_of

#: Where pods that train mount the volume for checkpoints.
CHECKPOINTS = "/checkpoints"


def build(config: Config, tasks: tuple[TaskName, ...], *, with_code: bool = True) -> base_component.BaseComponent:
    """A pipeline for some tasks.

    Variants are unrolled here and not by a `ParallelFor`, which an exit handler breaks in the backend
    (kubeflow/pipelines#12390).

    Args:
        config: Parameters; each task of the pipeline is given what it reads of them.
        tasks: Which of the parameters' tasks.
        with_code: Name the code that each task runs: other code is refused, and is no hit of the cache.

    Raises:
        ConfigError: There are more variants than a pipeline can compare.
    """
    name = "retraining" if len(tasks) > 1 else tasks[0]
    for task in tasks:
        if (count := len(config.task(task).variants)) > VARIANTS:
            raise ConfigError(f"{task}.variants: {count}; a pipeline compares at most {VARIANTS}; leave some out")

    @dsl.pipeline(name=name, description=f"Ingest, prepare, train every variant, evaluate, promote: {', '.join(tasks)}")
    def pipeline() -> None:
        for task in tasks:
            _retrain(config, task, with_code=with_code)

    return pipeline


def _retrain(config: Config, task: TaskName, *, with_code: bool) -> None:
    cluster = config.cluster

    def asked(component: str, variant: str = "", *, cached: bool = True) -> dict[str, str]:
        given = {"params": json.dumps(part(config, component, task, variant), sort_keys=True), "task": task}
        code = code_of(component, task) if with_code else ""
        return {**given, "code": code} if cached else given

    def on_cpu(step: pipeline_task.PipelineTask, *, cached: bool = True) -> pipeline_task.PipelineTask:
        step.set_container_image(cluster.image).set_caching_options(cached)
        if cluster.retries:
            # By default the backend tries again at once, and ends what takes longer than an hour from the start of the
            # first try on, all tries together (kubeflow/pipelines#14245, #13452): trainings take days.
            step.set_retry(cluster.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="4 weeks")
        tracking = {"MLFLOW_TRACKING_URI": config.tracking.uri, "MLFLOW_EXPERIMENT_NAME": config.tracking.experiment}
        for variable, value in {**tracking, **cluster.environment}.items():
            step.set_env_variable(variable, value)
        for secret, variables in cluster.secrets.items():
            kubernetes.use_secret_as_env(step, secret_name=secret, secret_key_to_env=variables)
        return step.set_cpu_limit(cluster.cpu).set_memory_limit(cluster.memory)

    def on_gpu(step: pipeline_task.PipelineTask, *, cached: bool = True) -> pipeline_task.PipelineTask:
        on_cpu(step, cached=cached)
        # Lightning's loaders pass batches through shared memory, of which a pod has 64 MiB by default.
        kubernetes.empty_dir_mount(step, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory")
        if cluster.gpus:
            step.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(cluster.gpus)
            kubernetes.add_toleration(step, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
            for label, value in cluster.gpu_node_selector.items():
                kubernetes.add_node_selector(step, label_key=label, label_value=value)
        return step

    # The only task of an unchanged run that has something to do before the registry: no cache knows what a source
    # outside holds. What follows has no input that differs between runs, or the cache would never be hit.
    found = on_cpu(components.resolve(**asked("ingest", cached=False)), cached=False)
    ingested = on_cpu(components.ingest(**asked("ingest"), version=found.output)).outputs["ingested"]
    prepared = on_cpu(components.prepare(**asked("prepare"), ingested=ingested))
    if config.task(task).data_card:
        # Data that drifted is not trained on.
        card = asked("data_card")
        prepared.after(on_cpu(components.data_card(params=card["params"], code=card["code"], ingested=ingested)))
    data = prepared.outputs["prepared"]
    compared = {}
    for number, variant in enumerate(config.task(task).variants, start=1):
        trained = components.train(
            **asked("train", variant),
            variant=variant,
            checkpoints=CHECKPOINTS if cluster.checkpoints_claim else "",
            prepared=data,
        )
        on_gpu(trained).set_display_name(f"train {task} {variant}")
        if cluster.checkpoints_claim:
            kubernetes.mount_pvc(trained, pvc_name=cluster.checkpoints_claim, mount_path=CHECKPOINTS)
        scored = components.evaluate(**asked("evaluate"), prepared=data, model=trained.outputs["model"])
        on_gpu(scored).set_display_name(f"evaluate {task} {variant}")
        compared[f"evaluation_{number}"] = scored.outputs["evaluation"]
        compared[f"model_{number}"] = trained.outputs["model"]
    best = on_cpu(components.compare(**asked("compare"), **compared))
    registered = on_cpu(
        components.register(
            **asked("register", cached=False),
            image=cluster.image,
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            comparison=best.outputs["comparison"],
            model=best.outputs["best"],
        ),
        cached=False,
    )
    baseline = on_cpu(components.baseline(**asked("baseline"), prepared=data))
    on_gpu(
        components.promote(
            **asked("promote", cached=False),
            registered=registered.outputs["registered"],
            prepared=data,
            baseline=baseline.outputs["evaluation"],
        ),
        cached=False,
    )
