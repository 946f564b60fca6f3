"""Step: let a challenger and the champion predict the same unlabelled files, and tell where they disagree."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.config.task import IngestConfig
from condswin.errors import BadDataError, BadFileError
from condswin.listing import list_files
from condswin.plain import plain
from condswin.progress import track
from condswin.registry.package import model_name
from condswin.serving import Served, serve

#: Roles, in the order of the predictions that `Serving.disagreement` compares.
ROLES = ("champion", "challenger")


@dataclass
class Case:
    """What both said of a file.

    Attributes:
        input: The file.
        disagreement: Measures of how far the predictions are from each other; empty where one is missing.
        unlike: By role, why the file is far from what that network was trained on.
        error: Why there is no comparison, a line.
    """

    input: Path
    disagreement: Mapping[str, float] = field(default_factory=dict)
    unlike: dict[str, list[str]] = field(default_factory=dict)
    error: str = ""

    def record(self) -> dict[str, Any]:
        """As JSON; null is undefined (Dice of two empty masks) or infinite (PSNR of equal images)."""
        measures = {name: value if isfinite(value) else None for name, value in self.disagreement.items()}
        return {"input": str(self.input), **measures, "unlike": self.unlike, "error": self.error or None}


@dataclass(frozen=True)
class Shadow:
    """The result.

    Attributes:
        models: Versions by role.
        cases: A case per file.
    """

    models: Mapping[str, str]
    cases: Sequence[Case]

    def record(self) -> dict[str, Any]:
        """As JSON: versions, the mean of each measure over files where it is finite, and how many files drifted."""
        compared = [case for case in self.cases if case.disagreement]
        names = sorted({name for case in compared for name in case.disagreement})
        values = {name: [x for case in compared if isfinite(x := case.disagreement[name])] for name in names}
        drifted = {role: sum(role in case.unlike for case in self.cases) for role in ROLES}
        return {
            **self.models,
            "files": len(self.cases),
            "compared": len(compared),
            "mean": {name: fmean(found) if found else None for name, found in values.items()},
            "unlike_training_data": drifted,
        }


def shadow(
    config: Config,
    task_name: TaskName,
    inputs: Sequence[Path],
    *,
    champion: str = "",
    challenger: str = "",
    tell: Callable[[Case], None] = lambda case: None,
) -> Shadow:
    """Predicts files with both networks and compares the predictions; writes nothing.

    Args:
        config: Names the registry.
        task_name: Which task.
        inputs: Files as they come from the scanner, without labels, or folders of them.
        champion: Model address or folder; empty for the alias.
        challenger: The same.
        tell: Called with each case once it is known.

    Returns:
        Per file the disagreement, and drift: which files are far from what each network was trained on.

    Raises:
        BadDataError: A file does not exist, a network was made for another task, the challenger is the champion (unless
            it was given), or no file could be compared.
        ModelUnavailableError: A version is not there.
        ModelAlteredError: It is not what was registered.
    """
    if missing := [plain(path) for path in inputs if not path.exists()]:
        raise BadDataError(f"{', '.join(missing)}: no such file")
    wanted = dict(zip(ROLES, (champion, challenger), strict=True))
    served = {role: serve(config, given or f"models:/{model_name(task_name)}@{role}") for role, given in wanted.items()}
    if other := next((each for each in served.values() if each.task != task_name), None):
        raise BadDataError(f"{other.model}: a model for {other.task}, {task_name} was asked for")
    first, second = (served[role].model for role in ROLES)
    if first == second and not challenger:
        raise BadDataError(f"{first}: is champion and challenger; register another network, or give --challenger")
    cases, files = [], _files(served[ROLES[0]], inputs)
    for path in track(files, "shadow", total=len(files)):
        cases.append(_case(served, path))
        tell(cases[-1])
    if not any(case.disagreement for case in cases):
        raise BadDataError("\n".join(["no file could be compared", *(case.error for case in cases)]))
    return Shadow({role: each.model for role, each in served.items()}, cases)


def _files(served: Served, inputs: Sequence[Path]) -> list[Path]:
    """All files of a kind that the model takes, those of folders among them, each once."""
    found: dict[Path, Path] = {}
    for path in inputs:
        inside = list_files(path, served.serving.suffixes, IngestConfig()) if path.is_dir() else None
        for file in [path] if inside is None else [path / each.relative_to(inside.source) for each in inside.files]:
            if inside is None or not served.serving.passed_over(file):
                found.setdefault(file.resolve(), file)
    return list(found.values())


def _case(served: Mapping[str, Served], path: Path) -> Case:
    case = Case(path)
    with tempfile.TemporaryDirectory(prefix="condswin-shadow-") as temporary:
        try:
            predicted = []
            for role, each in served.items():
                each.refuse_kind(path)
                if reasons := each.refusals(path):
                    case.unlike[role] = reasons
                folder = Path(temporary, role)
                folder.mkdir()
                predicted.append(each.predict(path, folder).path)
            case.disagreement = next(iter(served.values())).serving.disagreement(*predicted)
        except (BadFileError, BadDataError) as error:
            case.error = str(error)
    return case
