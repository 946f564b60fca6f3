"""Ready parameters: how profiles are composed, written to a file, and written again without losing a user's edits."""

import json
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from inspect import getfile
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from condswin.config.names import TASKS
from condswin.config.reading import parse_config, read_yaml, replaced, sections
from condswin.config.root import Config
from condswin.errors import ConfigError
from condswin.files import atomic_file
from condswin.suggest import unknown

PROFILES = Path(__file__).parents[1] / "profiles"

_USE = "condswin params use"
#: Edited keys that a message names.
SHOWN = 9


class Profile(NamedTuple):
    """A file of `profiles/`, condswin's own or beside the section of a task.

    Attributes:
        about: What it is for, in a line.
        overlay: Laid over other profiles; what it says about a task that none of them has is left out.
        values: The parameters that it names.
    """

    about: str
    overlay: bool
    values: dict[str, Any]


def profile_names() -> list[str]:
    """Names of the ready profiles."""
    return sorted(_files())


def read_profile(name: str) -> Profile:
    """A ready profile.

    Raises:
        ConfigError: There is none of this name.
    """
    if name not in profile_names():
        raise ConfigError(unknown("profile", name, profile_names()))
    values = read_yaml(_files()[name])
    return Profile(values.pop("about"), values.pop("overlay", False), values)


@cache
def _files() -> dict[str, Path]:
    """Files of profiles by name; names of condswin's own stay its own."""
    folders = [*(Path(getfile(kind)).parent / "profiles" for kind in sections().values()), PROFILES]
    return {path.stem: path for folder in folders for path in folder.glob("*.yaml")}


def compose(names: Sequence[str], settings: Sequence[str] = ()) -> Config:
    """Merges profiles, later ones over earlier ones, over the defaults.

    Args:
        names: The profiles. Those that are no overlays decide which tasks there are, wherever they stand.
        settings: As for `load_config`.

    Raises:
        ConfigError: A name is unknown, or the result is not valid.
    """
    profiles = [read_profile(name) for name in names]
    if all(profile.overlay for profile in profiles):
        raise ConfigError(f"{' + '.join(names)}: laid over another profile; e.g. `{_USE} demo {' '.join(names)}`")
    tasks = {key for profile in profiles if not profile.overlay for key in profile.values if key in TASKS}
    merged: dict[str, Any] = {}
    for profile in profiles:
        merged = _merge(merged, {key: part for key, part in profile.values.items() if key in tasks or key not in TASKS})
    return parse_config(replaced(merged, settings), origin=f"profiles {' + '.join(names)}")


def use(names: Sequence[str], path: Path, *, settings: Sequence[str] = (), overwrite: bool = False) -> list[str]:
    """Writes the parameters of profiles to a file.

    A `source` that the user set stays, whatever the profiles say.

    Args:
        names: The profiles.
        path: The file.
        settings: As for `load_config`.
        overwrite: Replace a file that was edited since a profile was written to it.

    Returns:
        The keys that were kept.

    Raises:
        ConfigError: A name is unknown, or the file was edited and `overwrite` is not set; names the edited keys.
    """
    config = compose(names, settings)
    edits = _edits(path) if path.exists() else {}
    given = {setting.partition("=")[0].strip() for setting in settings}
    sources = {f"{name}.source" for name in config.present}
    kept = {key: value for key, value in edits.items() if key in sources - given and value is not None}
    if others := [key for key in edits if not key.endswith(".source")]:
        shown = ", ".join(others[:SHOWN]) + (f" and {len(others) - SHOWN} more" if len(others) > SHOWN else "")
        if not overwrite:
            raise ConfigError(f"{path}: edited since it was written ({shown}); --overwrite replaces these values")
    lasting = [setting for setting in settings if setting.partition("=")[0].strip() not in sources]
    command = shlex.join([*_USE.split(), *names, *(part for setting in lasting for part in ("--set", setting))])
    config = compose(names, [*settings, *(f"{key}={json.dumps(value)}" for key, value in kept.items())])
    write_config(config, path, comment=f"Written by `{command}`; every key is yours to change.")
    return list(kept)


def write_config(config: Config, path: Path, *, comment: str) -> None:
    """Writes every parameter as YAML, atomically, under a leading comment."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 120
    with atomic_file(path) as temporary, temporary.open("w") as file:
        file.write("".join(f"# {line}\n" for line in comment.splitlines()))
        yaml.dump(config.values(), file)


def _edits(path: Path) -> dict[str, Any]:
    """The values by key in which a file differs from what `use` wrote; where it wrote nothing, all that it holds."""
    found = read_yaml(path)
    with suppress(ConfigError):  # what the file leaves out has its default
        found = parse_config(found, origin=str(path)).values()
    values, written = _flat(found), _flat(_origin(path.read_text()))
    keys = [key for key in sorted({*values, *written}) if not key.startswith("tasks.")]
    return {key: values.get(key) for key in keys if values.get(key) != written.get(key)}


def _origin(text: str) -> Any:
    """What `use` wrote to a file, going by its first line."""
    found = re.match(rf"# Written by `{_USE} (.*)`; ", text)
    words = shlex.split(found[1]) if found else []
    end = words.index("--set") if "--set" in words else len(words)
    try:
        return compose(words[:end], [word for word in words[end:] if word != "--set"]).values() if words else {}
    except ConfigError:  # written by another condswin
        return {}


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        return {prefix.rstrip("."): values}
    return {name: leaf for key, part in values.items() for name, leaf in _flat(part, f"{prefix}{key}.").items()}


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # `variants` are replaced whole: a profile that names two variants means those two.
        merged[key] = _merge(merged[key], value) if both and key not in ("variants", "folders") else value
    return merged
