"""The page of all parameters, from the docstrings of their sections."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from inspect import cleandoc, isclass
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic_core import PydanticUndefined

from condswin.config.gate import FIGURES
from condswin.config.pools import Pool
from condswin.config.reading import parameters
from condswin.config.section import Section
from condswin.config.task import TaskConfig, VariantConfig
from condswin.networks.presets import NETWORKS, UNROLLED, Unrolling

_HEAD = """# Parameters

Every key of `params.yaml`, as `condswin params reference` prints them. A task's section may be left out; `tasks` says
which are there, for `dvc.yaml`. Any key can be given on the command line instead:
`--set reconstruction.train.epochs=3`.

"The thesis" and its "slides" are Luigi Antonelli's, "Lightweight Conditional Swin U-Net for Medical Image
reconstruction and segmentation" (Sapienza Università di Roma, 2022/2023).
"""
_POOLS = """
## Pools

The file that `cluster.pools` names: `pools` by name, `steps` with the pool of each component, and the `default` pool of
the others. The repository has `infra/pools.yaml`.
"""
_VARIANTS = """
## Settings of networks

What `overrides` of a variant may name, and what each preset gives it. `unrolled-NAME` has the settings of `NAME` and
those of the last table.
"""


def reference() -> str:
    """The page, as Markdown."""
    parts = [
        _HEAD,
        *_section("", parameters()),
        *_section("TASK.variants.LABEL", VariantConfig),
        _POOLS,
        *_section("pools.NAME", Pool),
        _VARIANTS,
        *_networks(),
    ]
    return "\n".join(parts)


def _section(path: str, kind: type[Section], values: Any = None) -> Iterator[str]:
    """The table of a section and of those below it; `values` are the defaults where they are not the section's own.

    Of a list of sections, `values` are its elements, which are shown as they stand in YAML.
    """
    listed = values if isinstance(values, list) else []
    values = None if listed else values
    texts, schema = _attributes(kind), kind.model_json_schema()
    lines, below = [], []
    for name, field in kind.model_fields.items():
        part = _below(field.annotation)
        default = getattr(values, name) if values else field.default
        if part is not None:
            below.append((f"{path}.{name}".lstrip("."), part, default))
        elif name != "variants":
            default = "" if default is PydanticUndefined else f"`{json.dumps(default)}`"
            lines.append(f"| `{name}` | {_type(schema['properties'][name], schema)} | {default} | {texts[name]} |")
    title = f"## `{path}`" if path else "## At the top"
    yield f"{title}\n\n{cleandoc(kind.__doc__ or '').splitlines()[0]}\n"
    if issubclass(kind, TaskConfig):
        yield f"Metrics: {_listed(kind.metrics)}.\n"
        yield (
            f"Its gate may also name {_listed([*kind.further, *FIGURES])}; the reference methods "
            f"{_listed([*kind.baselines, kind.reference_method])}; and, in `where`, {_listed(kind.traits)}.\n"
        )
    if listed:
        texts_of = [
            "{" + ", ".join(f"{k}: {v}" for k, v in each.model_dump(mode="json").items()) + "}" for each in listed
        ]
        yield "\n".join(["A list; its default:\n", "```yaml", *(f"- {text}" for text in texts_of), "```", ""])
    if lines:
        yield "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *lines, ""])
    for where, part, default in below:
        yield from _section(where, part, default)


def _networks() -> Iterator[str]:
    kinds: dict[type, list[str]] = {}
    for name, network in NETWORKS.items():
        if not name.startswith(UNROLLED):
            kinds.setdefault(network.settings, []).append(name)
    for kind, names in kinds.items():
        presets = {preset: asdict(settings) for preset, settings in NETWORKS[names[0]].presets.items()}
        yield f"### {', '.join(f'`{name}`' for name in names)}\n"
        yield from _settings(kind, presets)
    yield f"### `{UNROLLED}NAME`\n"
    yield from _settings(Unrolling, {"all presets": asdict(Unrolling())})


def _settings(kind: type, presets: dict[str, dict[str, Any]]) -> Iterator[str]:
    lines = [f"| setting | {' | '.join(presets)} | meaning |", "|---" * (len(presets) + 2) + "|"]
    for name, text in _attributes(kind).items():
        values = " | ".join(f"`{json.dumps(values[name])}`" for values in presets.values())
        lines.append(f"| `{name}` | {values} | {text} |")
    yield "\n".join([*lines, ""])


def _attributes(kind: type) -> dict[str, str]:
    """What docstrings say of each attribute, the bases' first."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, listed = cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        for entry in re.split(r"\n    (?=\w)", f"\n{listed}")[1:]:
            name, _, text = entry.partition(":")
            texts[name] = " ".join(text.split())
    return texts


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names if name) or "(none)"


def _below(annotation: Any) -> type[Section] | None:
    """The section that a key holds, if it holds one."""
    several = isinstance(annotation, UnionType) or get_origin(annotation) is list
    kinds = get_args(annotation) if several else [annotation]
    return next((kind for kind in kinds if isclass(kind) and issubclass(kind, Section)), None)


def _type(schema: dict[str, Any], whole: dict[str, Any]) -> str:
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:
        return " or ".join(_type(part, whole) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "prefixItems" in schema:
        return f"{len(schema['prefixItems'])} numbers"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'], whole)}"
    name = {"object": "mapping", "string": "text", "boolean": "true or false", "null": "null"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema]
    kind = schema.get("type", "any")
    return " ".join([name.get(kind, kind), ", ".join(found)]).strip()
