"""Studies: networks to train and set side by side."""

from pathlib import Path
from typing import Any

from condswin.config.names import TaskName
from condswin.config.reading import read_yaml, sections, validated, variant_problem
from condswin.config.task import Study
from condswin.errors import ConfigError
from condswin.suggest import unknown

#: Ready studies, by file name.
STUDIES = Path(__file__).parents[1] / "studies"


def load_study(study: str, task: TaskName) -> Study:
    """Reads a ready study by its name, or a file.

    Raises:
        ConfigError: There is no such study, or it has a bad key, or a network that cannot do the task.
    """
    path, values = read_ready("study", study, STUDIES)
    found = validated(Study, values, origin=str(path))
    problems = {label: variant_problem(variant, sections()[task]) for label, variant in found.variants.items()}
    if wrong := [f"{path}: variants.{label}: {problem}" for label, problem in problems.items() if problem]:
        raise ConfigError("\n".join(wrong))
    return found


def read_ready(kind: str, name: str, folder: Path) -> tuple[Path, Any]:
    """Path and plain values of a ready file by its name, or of any file.

    Raises:
        ConfigError: There is no such file, or it is not YAML.
    """
    path = folder / f"{name}.yaml" if (folder / f"{name}.yaml").is_file() else Path(name)
    if not path.is_file():
        ready = sorted(path.stem for path in folder.glob("*.yaml"))
        raise ConfigError(f"{name}: no such file, and {unknown(f'ready {kind}', name, ready)}")
    return path, read_yaml(path)
