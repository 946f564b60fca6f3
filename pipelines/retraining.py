"""The retraining pipeline: raw files to a promoted model, for one task or both."""

import json

from kfp import dsl, kubernetes
from kfp.dsl import base_component, pipeline_task

import components
from condswin.config.names import TaskName
from condswin.config.root import Config

#: Where pods that train mount the volume for checkpoints.
CHECKPOINTS = "/checkpoints"


def build(config: Config, tasks: tuple[TaskName, ...]) -> base_component.BaseComponent:
    """A pipeline for some tasks.

    Variants are unrolled here and not by a `ParallelFor`, which an exit handler breaks in the backend
    (kubeflow/pipelines#12390).

    Args:
        config: Parameters; their JSON becomes the default of the pipeline parameter `params`.
        tasks: Which of the parameters' tasks.
    """
    name = "retraining" if len(tasks) > 1 else tasks[0]
    default = json.dumps(config.values(), sort_keys=True)

    @dsl.pipeline(name=name, description=f"Ingest, prepare, train every variant, evaluate, promote: {', '.join(tasks)}")
    def pipeline(params: str = default) -> None:
        for task in tasks:
            _retrain(config, params, task)

    return pipeline


def _retrain(config: Config, params: str, task: TaskName) -> None:
    cluster = config.cluster

    def on_cpu(step: pipeline_task.PipelineTask, *, cached: bool = True) -> pipeline_task.PipelineTask:
        step.set_container_image(cluster.image).set_caching_options(cached).set_retry(cluster.retries)
        return step.set_cpu_limit(cluster.cpu).set_memory_limit(cluster.memory)

    def on_gpu(step: pipeline_task.PipelineTask) -> pipeline_task.PipelineTask:
        on_cpu(step)
        # Lightning's loaders pass batches through shared memory, of which a pod has 64 MiB by default.
        kubernetes.empty_dir_mount(step, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory")
        if cluster.gpus:
            step.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(cluster.gpus)
            kubernetes.add_toleration(step, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
            for label, value in cluster.gpu_node_selector.items():
                kubernetes.add_node_selector(step, label_key=label, label_value=value)
        return step

    # Where a source outside is read, its content can change under the same name: no caching of these two.
    raw = on_cpu(components.demo_data(params=params, task=task), cached=False)
    ingested = on_cpu(components.ingest(params=params, task=task, source=raw.outputs["Output"]), cached=False)
    prepared = on_cpu(components.prepare(params=params, task=task, ingested=ingested.outputs["ingested"]))
    if config.task(task).data_card:
        # Data that drifted is not trained on.
        prepared.after(on_cpu(components.data_card(params=params, ingested=ingested.outputs["ingested"])))
    data = prepared.outputs["prepared"]
    evaluated = []
    for variant in config.task(task).variants:
        trained = components.train(
            params=params,
            task=task,
            variant=variant,
            checkpoints=CHECKPOINTS if cluster.checkpoints_claim else "",
            prepared=data,
        )
        on_gpu(trained).set_display_name(f"train {task} {variant}")
        if cluster.checkpoints_claim:
            kubernetes.mount_pvc(trained, pvc_name=cluster.checkpoints_claim, mount_path=CHECKPOINTS)
        scored = components.evaluate(params=params, task=task, prepared=data, model=trained.outputs["model"])
        on_gpu(scored).set_display_name(f"evaluate {task} {variant}")
        evaluated.append(scored.outputs["Output"])
    best = on_cpu(components.compare(params=params, task=task, evaluations=evaluated))
    model = dsl.importer(artifact_uri=best.outputs["model_uri"], artifact_class=dsl.Model, reimport=False)
    registered = on_cpu(
        components.register(
            params=params,
            task=task,
            image=cluster.image,
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            comparison=best.outputs["comparison"],
            model=model.output,
        ),
        cached=False,
    )
    on_gpu(
        components.promote(params=params, task=task, registered=registered.outputs["registered"], prepared=data)
    ).set_caching_options(False)
