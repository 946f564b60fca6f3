"""Searches: parameters to find good values of, and how."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from condswin.config.names import TaskName
from condswin.config.reading import parse_config, replaced, validated
from condswin.config.root import Config
from condswin.config.section import Natural, Positive, Section
from condswin.config.study import read_ready
from condswin.errors import ConfigError
from condswin.plain import plain
from condswin.suggest import nearest

#: Ready searches, by file name.
SEARCHES = Path(__file__).parents[1] / "searches"


class Range(Section):
    """What a parameter is drawn from: `low` to `high`, or `choices`.

    Attributes:
        low: Least value.
        high: Largest value.
        log: Draw its logarithm evenly.
        step: Draw whole numbers, so far apart from `low` on; without it, any number between.
        choices: Values of any kind.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: Positive | None = None
    choices: list[JsonValue] = []

    @property
    def ends(self) -> list[JsonValue]:
        """The choices, or the least and the largest value, as the parameter takes them."""
        return self.choices or [self.value(end) for end in (self.low, self.high) if end is not None]

    def value(self, number: float) -> float | int:
        """A number as the parameter takes it: whole where there is a `step`."""
        return int(number) if self.step else float(number)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.choices) == (self.low is not None and self.high is not None):
            raise ValueError("give low and high, or choices")
        if self.low is None or self.high is None:
            if self.log or self.step or self.low is not None or self.high is not None:
                raise ValueError("choices take no low, high, log or step")
            return self
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("low must be less than high, and above 0 with log")
        if self.step and (self.low % 1 or self.high % 1 or (self.log and self.step > 1)):
            raise ValueError("with step low and high are whole numbers, and with log it is 1")
        return self


class Search(Section):
    """What to try, and when to give up.

    Attributes:
        space: By key below the task's section (`train.learning_rate`, `variants.swin.overrides.stem_channels`).
        pruner: `median` gives a trial up that is worse than the median of those before it was after as many epochs,
            `hyperband` all but the best third at epochs three times as far apart each time; `none` none.
        startup_trials: Trials that `median` lets end first.
        startup_epochs: Epochs that every trial has.
    """

    space: Annotated[dict[str, Range], Field(min_length=1)]
    pruner: Literal["median", "hyperband", "none"] = "median"
    startup_trials: Natural = 5
    startup_epochs: Positive = 1


def load_search(search: str, config: Config, task: TaskName, variant: str) -> Search:
    """Reads a ready search by its name, or a file, and tries the ends of all ranges on the parameters.

    Raises:
        ConfigError: There is no such search, or it has a bad key, or values that a parameter cannot have.
    """
    path, values = read_ready("search", search, SEARCHES)
    found = validated(Search, values, origin=str(path))
    problems = [problem for key in found.space if (problem := _problem(found.space[key], key, config, task, variant))]
    if problems:
        raise ConfigError("\n".join(f"{path}: space.{problem}" for problem in problems))
    return found


def shared_database(uri: str) -> str:
    """A database that processes can share, by the driver that is installed; empty for none.

    Raises:
        ConfigError: It is of another kind.
    """
    scheme, _, rest = uri.partition("://")
    if uri and scheme not in ("postgresql", "postgresql+psycopg2"):
        raise ConfigError(
            f"storage: {plain(scheme, 40)!r} is no database that processes can share; give "
            "postgresql://USER@HOST/DATABASE, or leave it out for a file in the output folder"
        )
    return f"postgresql+psycopg2://{rest}" if uri else ""


def settings(task: TaskName, values: dict[str, JsonValue]) -> list[str]:
    """Values by key below a task's section, as `--set` takes them."""
    return [f"{task}.{key}={json.dumps(value)}" for key, value in values.items()]


def _problem(range_: Range, key: str, config: Config, task: TaskName, variant: str) -> str | None:
    own = f"variants.{variant}"
    if not key.startswith(("train.", f"{own}.")):
        near = nearest(key, [f"train.{name}" for name in type(config.task(task).train).model_fields])
        return f"{key}: not what decides a training of {variant};{near} give a key below train. or {own}."
    for value in range_.ends:
        try:
            parse_config(replaced(config.values(), settings(task, {key: value})), origin=f"{key} of {value!r}")
        except ConfigError as error:
            whole = "; `step: 1` draws whole numbers" if "integer" in str(error) and not range_.step else ""
            return str(error).splitlines()[0] + whole
    return None
