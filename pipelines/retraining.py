"""The retraining pipeline: raw files to a promoted model, for one task or both."""

from kfp import dsl
from kfp.dsl import base_component

from components.compare import VARIANTS
from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.config.task import CardedTaskConfig
from condswin.errors import ConfigError
from pipelines.tasks import Channel, Tasks, pipeline


def build(
    config: Config, tasks: tuple[TaskName, ...], *, with_code: bool = True, retries: bool = True
) -> base_component.BaseComponent:
    """A pipeline for some tasks.

    Variants are unrolled here and not by a `ParallelFor`, which an exit handler breaks in the backend
    (kubeflow/pipelines#12390).

    Args:
        config: Parameters; each task of the pipeline is given what it reads of them.
        tasks: Which of the parameters' tasks.
        with_code: Name the code that each task runs: other code is refused, and is no hit of the cache.
        retries: Try again what failed.

    Raises:
        ConfigError: There are more variants than a pipeline can compare, or the pools cannot be read.
    """
    for task in tasks:
        if (count := len(config.task(task).variants)) > VARIANTS:
            raise ConfigError(f"{task}.variants: {count}; a pipeline compares at most {VARIANTS}; leave some out")
    return pipeline(
        "retraining" if len(tasks) > 1 else tasks[0],
        f"Ingest, prepare, train every variant, evaluate, promote: {', '.join(tasks)}",
        config,
        tasks,
        _retrain,
        with_code=with_code,
        retries=retries,
    )


def _retrain(tasks: Tasks) -> None:
    ingested = tasks.ingest()
    card: dict[str, Channel] = {}
    verdicts = [ingested.whole]
    if isinstance(tasks.config.task(tasks.name), CardedTaskConfig):
        # Data that drifted is not trained on.
        card["card"], like = tasks.card(ingested.files, ingested.whole)
        verdicts.append(like)
    data, sound = tasks.prepare(ingested.files, *verdicts)
    scored, compared = [], {}
    for number, variant in enumerate(tasks.config.task(tasks.name).variants, start=1):
        trained = tasks.train(variant, data)
        converged = tasks.require(trained.after(sound), step="train", variant=variant)
        model = trained.outputs["model"]
        evaluated = tasks.add("evaluate", prepared=data, model=model).after(converged)
        evaluated.set_display_name(f"evaluate {tasks.name} {variant}")
        scored.append(evaluated)
        compared |= {f"evaluation_{number}": evaluated.outputs["evaluation"], f"model_{number}": model}
    baseline = tasks.add("baseline", prepared=data).after(sound)
    best = tasks.add("compare", **compared).after(tasks.require(*scored, baseline, step="evaluate"))
    tasks.add(
        "report",
        image=tasks.pools.of("train").image,
        prepared=data,
        comparison=best.outputs["comparison"],
        baseline=baseline.outputs["evaluation"],
        **compared,
    )
    registered = tasks.add(
        "register",
        image=tasks.pools.of("train").image,
        pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        source_md5=ingested.md5,
        comparison=best.outputs["comparison"],
        model=best.outputs["best"],
        **card,
    )
    tasks.add(
        "promote",
        registered=registered.outputs["registered"],
        prepared=data,
        baseline=baseline.outputs["evaluation"],
    )
