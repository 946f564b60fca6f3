"""Parameters cut down to what a step reads: a change of others leaves the step's input, and so its result, as it is."""

from typing import Any

from condswin.config.names import TaskName
from condswin.config.reading import parse_config
from condswin.config.root import Config
from condswin.errors import ConfigError

# Keys by step, `*` for the task's section. Where MLflow keeps things comes from the environment.
_SCORED = ("*.train.device", "*.train.crop", "*.predict")
_SOURCE = ("seed", "*.source", "*.demo", "*.ingest")
_READ: dict[str, tuple[str, ...]] = {
    "resolve": _SOURCE,
    "ingest": (*_SOURCE, "cluster.dvc_remote"),
    # MRI's shows masks.
    "data_card": ("*.ingest", "*.undersample", "*.drift.reference", "*.drift.threshold"),
    "prepare": ("*.ingest", "*.{preparation}"),
    "train": ("seed", "*.ingest", "*.{preparation}", "*.train", "*.variants.{variant}"),
    "train_nodes": ("seed", "*.ingest", "*.{preparation}", "*.train", "*.variants.{variant}"),
    "tune": ("seed", "*.ingest", "*.{preparation}", "*.train", "*.variants.{variant}"),
    "baseline": ("*.ingest", "*.{preparation}"),
    "evaluate": ("*.ingest", "*.{preparation}", *_SCORED),
    "compare": (),
    "fetch": (),
    "predict": (*_SOURCE, "*.{preparation}", *_SCORED),
    "report": ("*.source", "*.ingest", "*.{preparation}", "*.gate.patients"),
    "retrain": ("*.drift.schedule",),
    "register": (),
    "promote": ("*.ingest", "*.{preparation}", *_SCORED, "*.gate"),
}


def part(config: Config, step: str, task: TaskName, variant: str = "") -> dict[str, Any]:
    """What a step reads of the parameters, JSON-able; keys that the task does not have are left out.

    Args:
        config: All parameters.
        step: A component.
        task: Which task.
        variant: For a step that is for one.

    Raises:
        ConfigError: There is no such task or variant.
    """
    section = config.task(task)
    if variant:
        section.variant(variant)
    result: dict[str, Any] = {task: {}}
    values = config.values()
    for key in _READ[step]:
        path = key.replace("*", task).format(preparation=section.preparation, variant=variant).split(".")
        found: Any = values
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if found is not None:
            place: dict[str, Any] = result
            for name in path[:-1]:
                place = place.setdefault(name, {})
            place[path[-1]] = found
    return result


def whole(values: Any, task: TaskName) -> Config:
    """Parameters of which a step reads only what `part` has given it; the rest is whatever is valid.

    Raises:
        ConfigError: The part is none of parameters.
    """
    if not isinstance(values, dict) or not isinstance(values.get(task), dict):
        raise ConfigError(f"pipeline parameter params: has no section {task!r}")
    unread = {"source": "", "variants": {"swin": {}}}
    return parse_config({**values, task: {**unread, **values[task]}}, origin="pipeline parameter params")
