"""Pipelines around the champion: scores on other data, drift of other data, predictions of files."""

from kfp.dsl import base_component

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.config.task import CardedTaskConfig
from condswin.errors import ConfigError
from pipelines.tasks import Tasks, pipeline


def evaluation(
    config: Config, tasks: tuple[TaskName, ...], *, with_code: bool = True, retries: bool = True
) -> base_component.BaseComponent:
    """Scores the champion on the validation and test cases of the source; see `pipelines.retraining.build`."""
    description = f"Score the champion on the source's data: {', '.join(tasks)}"
    return pipeline("evaluation", description, config, tasks, _evaluate, with_code=with_code, retries=retries)


def drift(
    config: Config, tasks: tuple[TaskName, ...], *, with_code: bool = True, retries: bool = True
) -> base_component.BaseComponent:
    """Compares the source's data with what the champion was trained on; fails if it drifted, and starts a schedule.

    See `pipelines.retraining.build`.

    Raises:
        ConfigError: None of the tasks has a data card.
    """
    having = tuple(task for task in tasks if isinstance(config.task(task), CardedTaskConfig))
    if not having:
        raise ConfigError(f"drift: {' and '.join(tasks)} has no data card to tell it by; leave the pipeline out")
    description = f"Compare the source's data with the champion's training data: {', '.join(having)}"
    return pipeline("drift", description, config, having, _drift, with_code=with_code, retries=retries)


def batch_predict(
    config: Config, tasks: tuple[TaskName, ...], *, with_code: bool = True, retries: bool = True
) -> base_component.BaseComponent:
    """Predicts every file of the source by the champion; see `pipelines.retraining.build`."""
    description = f"Predict the source's files by the champion: {', '.join(tasks)}"
    return pipeline("batch-predict", description, config, tasks, _predict, with_code=with_code, retries=retries)


def _evaluate(tasks: Tasks) -> None:
    ingested = tasks.ingest()
    data, sound = tasks.prepare(ingested.files, ingested.whole)
    champion = tasks.add("fetch").outputs["model"]
    scored = tasks.add("evaluate", prepared=data, model=champion).after(sound)
    judged = tasks.require(scored, step="evaluate")
    tasks.add("report", prepared=data, evaluation_1=scored.outputs["evaluation"], model_1=champion).after(judged)


def _drift(tasks: Tasks) -> None:
    ingested = tasks.ingest()
    card, _ = tasks.card(ingested.files, ingested.whole, reference=tasks.add("fetch").outputs["card"])
    section = tasks.config.task(tasks.name)
    if isinstance(section, CardedTaskConfig) and section.drift.schedule:
        tasks.add("retrain", version=ingested.version, card=card)


def _predict(tasks: Tasks) -> None:
    found = tasks.add("resolve")
    champion = tasks.add("fetch").outputs["model"]
    predicted = tasks.add("predict", version=found.output, model=champion)
    tasks.require(predicted, step="predict")
