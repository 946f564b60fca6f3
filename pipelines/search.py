"""The search pipeline: trials of other parameters, each a task, whose study is in PostgreSQL."""

from kfp.dsl import base_component, pipeline_task

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.config.search import load_search
from condswin.errors import ConfigError
from pipelines.placing import CHECKPOINTS
from pipelines.tasks import Tasks, pipeline


def search(
    config: Config, tasks: tuple[TaskName, ...], *, with_code: bool = True, retries: bool = True
) -> base_component.BaseComponent:
    """Searches for parameters with which a variant trains best; see `pipelines.retraining.build`.

    Raises:
        ConfigError: There is no such search or variant, it tries what cannot be, or the pools cannot hold it.
    """
    description = f"Search for the parameters that train best: {', '.join(tasks)}"
    return pipeline("search", description, config, tasks, _search, with_code=with_code, retries=retries)


def _search(tasks: Tasks) -> None:
    section, wanted = tasks.config.task(tasks.name), tasks.config.cluster.search
    variant = wanted.variant or next(iter(section.variants))
    section.variant(variant)
    checkpoints = tasks.pools.of("tune").checkpoints
    if checkpoints and checkpoints.access != "ReadWriteMany" and wanted.at_once > 1:
        raise ConfigError(
            f"cluster.search.at_once: {wanted.at_once}, but the volume for checkpoints is {checkpoints.access}: trials "
            "of a variant run on several nodes; set 1, or give tune a pool with ReadWriteMany or none"
        )
    given = {
        "search": load_search(wanted.search, tasks.config, tasks.name, variant).model_dump_json(),
        "trials": wanted.trials,
        "seeds": wanted.seeds,
        "checkpoints": CHECKPOINTS if checkpoints else "",
    }
    ingested = tasks.ingest()
    data, sound = tasks.prepare(ingested.files, ingested.whole)
    # Lanes, since an exit handler breaks loops in the backend (kubeflow/pipelines#12390), and their `parallelism`.
    lanes: list[pipeline_task.PipelineTask] = [sound] * min(wanted.at_once, wanted.trials)
    for number in range(wanted.trials):
        lane = number % len(lanes)
        trial = tasks.add("tune", variant, lane=lane, prepared=data, **given).after(lanes[lane])
        trial.set_display_name(f"trial {number} {tasks.name} {variant}")
        # What stops one, no parameter being the reason, would stop those after it.
        lanes[lane] = tasks.require(trial, step=f"trial {number}", variant=variant)
