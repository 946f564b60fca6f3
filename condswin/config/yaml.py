"""Plain values of YAML texts, read within bounds: a few lines of aliases can stand for more than any memory holds."""

import json
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, ScalarEvent

from condswin.errors import ConfigError
from condswin.plain import plain

#: Deepest nesting; parameters have seven.
MAX_DEPTH = 32
#: Most values, those counted again that an alias repeats; parameters have a few hundred.
MAX_VALUES = 50_000


def read_yaml_text(text: str, *, origin: str) -> Any:
    """Plain values of a YAML text.

    Args:
        text: The text.
        origin: Where it came from, for messages.

    Raises:
        ConfigError: It is not YAML, nests or repeats values beyond measure, or has some that JSON has not.
    """
    try:
        _require_bounds(text)
        values = YAML(typ="safe", pure=True).load(text)
        json.dumps(values)
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{origin}: not YAML: {_escaped(error)}") from None
    except TypeError as error:  # YAML has dates, bytes and sets, and any value as a key
        raise ConfigError(
            f"{origin}: {plain(error)}: give texts, numbers, lists and mappings, dates in quotes"
        ) from None
    return values


class _Bounds:
    """Depth and number of values of a text, as its events come: nothing is built of it."""

    def __init__(self) -> None:
        self._open: list[tuple[str | None, int]] = []  # anchor of each open collection, and values before it
        self._sizes: dict[str, int] = {}
        self._values = 0

    def see(self, event: Event) -> None:
        if isinstance(event, CollectionEndEvent):
            anchor, before = self._open.pop()
            if anchor:
                self._sizes[anchor] = self._values - before
            return
        if isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in self._open):
                raise ValueError(f"*{event.anchor} stands within what it repeats")
            self._values += self._sizes.get(event.anchor, 1)
        elif isinstance(event, CollectionStartEvent):
            self._open.append((event.anchor, self._values))
            self._values += 1
        elif isinstance(event, ScalarEvent):
            self._values += 1
            if event.anchor:
                self._sizes[event.anchor] = 1
        if len(self._open) > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if self._values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values, those counted again that aliases (*name) repeat")


def _require_bounds(text: str) -> None:
    bounds = _Bounds()
    for event in YAML(typ="safe", pure=True).parse(text):
        bounds.see(event)


def _escaped(error: Exception) -> str:
    """A reason, line by line: it quotes the text."""
    return "\n".join(map(plain, str(error).split("\n")))
