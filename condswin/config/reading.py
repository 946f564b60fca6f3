"""Parameters from a file: what is unknown or impossible is refused with its key's path, before any step begins."""

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from inspect import isclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError, create_model
from pydantic_core import ErrorDetails

from condswin.config.gate import gate_problems
from condswin.config.names import PACKAGES, TASKS, TaskName
from condswin.config.root import Config
from condswin.config.section import Section
from condswin.config.task import TaskConfig, VariantConfig
from condswin.config.yaml import read_yaml_text
from condswin.errors import ConfigError
from condswin.networks.presets import is_unrolled, settings_of
from condswin.plain import plain
from condswin.suggest import nearest

S = TypeVar("S", bound=Section)

# Other characters are parts of paths, or refused by MLflow in names of models and parameters.
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@cache
def sections() -> dict[TaskName, type[TaskConfig]]:
    """The kind of each task's section, as the `config` module of its package has it.

    Raises:
        ConfigError: An installed package names a task that cannot be used.
    """
    return {name: _section_kind(name, package) for name, package in PACKAGES.items()}


@cache
def parameters() -> type[Config]:
    """All of `params.yaml`: a section for each known task, left out where the task is not wanted."""
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in sections().items()}
    return create_model("Parameters", __base__=Config, __doc__="All of `params.yaml`.", **fields)


def __getattr__(name: str) -> type[Config]:
    # By its name, which other processes are told.
    if name == "Parameters":
        return parameters()
    raise AttributeError(name)


def load_config(path: Path, settings: Sequence[str] = ()) -> Config:
    """Reads and validates a parameters file.

    Args:
        path: The file.
        settings: Values that replace the file's, as `reconstruction.train.epochs=3`; see `replaced`.

    Raises:
        ConfigError: The file is missing, is not YAML or has a bad key, or one that has no effect.
    """
    origin = f"{path} with --set" if settings else str(path)
    config = parse_config(replaced(read_yaml(path), settings), origin=origin)
    # Not where parameters are parsed: those of one variant, or of a model, say nothing of the others.
    idle = []
    for name in config.present:
        section = config.task(name)
        unrolled = any(is_unrolled(variant.network) for variant in section.variants.values())
        idle += [f"{origin}: {name}.{problem}" for problem in section.idle(unrolled=unrolled)]
    if idle:
        raise ConfigError("\n".join(idle))
    return config


def parse_config(values: Any, *, origin: str) -> Config:
    """Validates plain values as parameters, names and settings of networks and metrics of gates among them.

    Raises:
        ConfigError: Lists every bad key with its path and value.
    """
    stages = values.get("tasks") if isinstance(values, dict) else None
    if stages is not None:
        values = {key: value for key, value in values.items() if key != "tasks"}
    config = validated(parameters(), values, origin=origin)
    problems = [problem for name in config.present for problem in _problems(config.task(name))]
    if stages not in (None, config.stages):
        problems.append(f"tasks: must be {json.dumps(config.stages)}, as the sections are; dvc.yaml's stages follow it")
    if not config.present:
        problems = [f"no task; give at least one of the sections {', '.join(TASKS)}"]
    if problems:
        raise ConfigError("\n".join(f"{origin}: {problem}" for problem in problems))
    return config


def validated(kind: type[S], values: Any, *, origin: str) -> S:
    """Validates plain values.

    Args:
        kind: What they must be.
        values: What a YAML or JSON reader returned.
        origin: The file or argument that the values came from, for messages.

    Raises:
        ConfigError: Lists every bad key with its path and value.
    """
    try:
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise ConfigError("\n".join(f"{origin}: {_line(kind, problem)}" for problem in problems)) from None


def variant_problem(variant: VariantConfig, section: type[TaskConfig]) -> str | None:
    """Why a task cannot have this variant; None if it can."""
    try:
        settings = settings_of(variant.network, preset=variant.preset, **variant.overrides)
    except ValueError as error:
        return str(error)
    if getattr(settings, "deep_supervision", False) and not section.deep_supervision:
        return f"deep_supervision: {section.name} has no loss for answers at several scales; leave it off"
    if is_unrolled(variant.network) and not section.unrolled:
        return f"{variant.network} takes complex images and a mask, so it reconstructs and does nothing else"
    return None


def replaced(values: Any, settings: Sequence[str], *, option: str = "--set") -> Any:
    """Plain values with some of them replaced.

    Args:
        values: What a YAML reader returned.
        settings: `KEY.KEY=VALUE` each, the value in YAML.
        option: Where they come from, for errors.

    Raises:
        ConfigError: A setting has another form, or names what cannot hold keys, or a task that is not there.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"{option} {setting}: not of the form KEY.KEY=VALUE, e.g. reconstruction.train.epochs=3")
        if keys[0] in TASKS and isinstance(values, dict) and keys[0] not in values:
            raise ConfigError(f"{option} {setting}: {keys[0]} is not in the parameters")
        values = _with(values, keys, read_yaml_text(text, origin=f"{option} {setting}"), f"{option} {setting}")
    return values


def _with(values: Any, keys: list[str], value: Any, setting: str) -> Any:
    if not keys:
        return value
    if not isinstance(values, dict):
        raise ConfigError(f"{setting}: {keys[0]} is below a value that has no keys")
    return {**values, keys[0]: _with(values.get(keys[0], {}), keys[1:], value, setting)}


def read_yaml(path: Path) -> Any:
    """Plain values of a YAML file.

    Raises:
        ConfigError: The file is missing or is not YAML.
    """
    try:
        return read_yaml_text(path.read_text(), origin=str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `condswin params use demo` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable: {error}") from None


def _section_kind(name: TaskName, package: str) -> type[TaskConfig]:
    try:
        kind: type[TaskConfig] = import_module(f"{package}.config").SECTION
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"task {name}: {package}.config: {error}; repair the package, or uninstall it") from None
    taken = name in Config.model_fields or hasattr(Config, name) or name == "tasks"
    if kind.name != name or not name.isidentifier() or taken:
        raise ConfigError(
            f"task {name}: {package} has a section {kind.name!r}; both must be one Python identifier, and no other key "
            f"of params.yaml ({', '.join(Config.model_fields)}, tasks): rename it in its entry point and its section"
        )
    return kind


def _problems(section: TaskConfig) -> list[str]:
    problems = []
    for label, variant in section.variants.items():
        if not _LABEL.fullmatch(label):
            problems.append(
                f"{section.name}.variants: {plain(label, 80)!r} names folders and MLflow's runs and models: give 1 to "
                "64 of the letters a to z, digits, _ and -, the first one a letter or digit"
            )
        if problem := variant_problem(variant, type(section)):
            problems.append(f"{section.name}.variants.{label}: {problem}")
    return problems + [
        f"{section.name}.gate.{key}: {sentence}" for key, sentence in gate_problems(section.gate, section)
    ]


def _line(kind: type[Section], problem: ErrorDetails) -> str:
    *parents, last = problem["loc"] or ("(top level)",)
    path = ".".join(str(part) for part in (*parents, last))
    if problem["type"] == "extra_forbidden":
        known = _keys(kind, parents)
        return f"{path}: no such key;{nearest(last, known)} there are: {', '.join(known)}"
    # Of an address, what is given may be a password.
    hidden = problem["type"] == "missing" or path == "tracking.uri"
    given = "" if hidden else f" (given: {json.dumps(problem['input'])[:80]})"
    near = ""
    if problem["type"] == "literal_error":
        near = nearest(problem["input"], re.findall("'([^']*)'", problem["ctx"]["expected"]))
    return f"{path}: {problem['msg']}{given}{';' if near else ''}{near}"


def _keys(kind: Any, path: Sequence[int | str]) -> list[str]:
    """The keys of the section at a path below one of this kind."""
    for key in path:
        kind = kind.model_fields[key].annotation if _is_section(kind) else get_args(kind)[-1]
        if isinstance(kind, UnionType):
            kind = next(part for part in get_args(kind) if part is not type(None))
    return list(kind.model_fields)


def _is_section(kind: Any) -> bool:
    return isclass(kind) and get_origin(kind) is None and issubclass(kind, Section)
