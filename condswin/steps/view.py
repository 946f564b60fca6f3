"""Step: one case on a local page: k-space, images, segmentations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from condswin import layout
from condswin.config.names import TASKS, TaskName
from condswin.config.root import Config
from condswin.errors import BadDataError, BadFileError
from condswin.evaluation.results import METRICS, cases_file, read_rows
from condswin.files import read_json
from condswin.kinds import kind_of
from condswin.manifest import Manifest
from condswin.outputs import check_file
from condswin.plain import plain
from condswin.progress import say
from condswin.reporting.cases import shown_cases
from condswin.reporting.html import write_page
from condswin.reporting.volumes import stack
from condswin.suggest import unknown
from condswin.tasks.facts import Facts
from condswin.tasks.loading import brings, load
from condswin.tasks.pictures import CasePanels
from condswin.tasks.viewing import Viewing

#: Characters of all pictures of a page.
ROOM = 46_000_000
# Parts of paths that say nothing of who predicted.
_FOLDERS = ("predictions", "val", "test")


def view(
    config: Config,
    what: Path,
    *,
    reference: Path | None = None,
    predictions: Sequence[Path] = (),
    case: str = "",
    out: Path,
    overwrite: bool = False,
) -> Path:
    """Writes a page on one case, a file that needs nothing else.

    Args:
        config: Parameters.
        what: A file, or a folder with predictions, of one method or of several in folders of their own.
        reference: The target, if it is neither in the file nor beside it.
        predictions: Files of the same case, or folders that hold them.
        case: Which case of a folder; empty for the one with the worst score, else for the first.
        out: The page.
        overwrite: Replace a file that is not ours.

    Raises:
        BadDataError: There is no such file, or no such case in the folder.
        BadFileError: A file is unusable.
        OutputError: The page would hurt something.
    """
    given = [what, *predictions, *([reference] if reference else [])]
    if missing := [plain(path) for path in given if not path.exists()]:
        raise BadDataError(f"{', '.join(missing)}: no such file")
    check_file(out, inputs=given, overwrite=overwrite)
    viewing = _viewing(config, what)
    if what.is_dir():
        found, results = _predictions(viewing, what), _results(what)
        task = _task(results)
        case = _chosen(config, task, what, found, case)
        scan, methods = _prepared(task, results, viewing, case), found[case]
    else:
        scan, methods = what, {}
        case = viewing.prediction_of(what) or what.name.partition(".")[0]
    if scan is not None:
        say(f"{plain(case)}: with {plain(scan)}")
    for path in predictions:
        if path.is_file():
            folders = (folder.name for folder in path.parents if folder.name and folder.name not in _FOLDERS)
            methods[_free(next(folders, path.stem), [*methods, *viewing.own])] = path
            continue
        inside = _predictions(viewing, path)
        if case not in inside:
            raise BadDataError(f"{plain(path)}: no prediction of {plain(case)}; {_listed(inside)}")
        for name, file in inside[case].items():
            methods[_free(name, [*methods, *viewing.own])] = file
    shown, notes = viewing.show(scan, reference, methods)
    for note in notes:
        say(f"{plain(case)}: {note}")
    panels = shown if isinstance(shown, CasePanels) else None
    best = next(iter(methods), "zero-filled")
    drawn = shown_cases([(case, "")], lambda _: panels, best, room=ROOM) if panels else []
    volumes = None if isinstance(shown, CasePanels) else stack(shown)
    write_page(out, "view.html", name=case, case=next(iter(drawn), None), volumes=volumes, notes=notes)
    return out


def _viewing(config: Config, what: Path) -> Viewing:
    """The task whose file it is, or whose files are in the folder.

    Raises:
        BadFileError: It is none's.
    """
    known = [load(Viewing, task, config) for task in TASKS if brings(Viewing, task)]
    endings = tuple(ending for viewing in known for ending in viewing.suffixes)
    files = sorted(path for path in what.rglob("*") if path.is_file()) if what.is_dir() else [what]
    for path in files:
        if not path.name.lower().endswith(endings) or path.name.startswith("."):
            continue
        for viewing in known:
            if not path.name.lower().endswith(viewing.suffixes):
                continue
            if viewing.prediction_of(path) if what.is_dir() else viewing.takes(path):
                return viewing
    if what.is_dir():
        raise BadDataError(f"{plain(what)}: no predictions in it ({', '.join(dict.fromkeys(endings))})")
    kind = kind_of(what)
    raise BadFileError(what, f"is {kind or 'of no kind known here'}; view takes k-space, reconstructions, CT as NIfTI")


def _predictions(viewing: Viewing, folder: Path) -> dict[str, dict[str, Path]]:
    """Files of predictions by case and method: a folder's name is its method's."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name.lower().endswith(viewing.suffixes) and not path.name.startswith("."):
            parts = [part for part in path.relative_to(folder).parent.parts if part not in _FOLDERS]
            if name := viewing.prediction_of(path):
                methods = found.setdefault(name, {})
                methods[_free("/".join(parts) or folder.resolve().name, [*methods, *viewing.own])] = path
    if not found:
        raise BadDataError(f"{plain(folder)}: no predictions in it ({', '.join(viewing.suffixes)})")
    return found


def _chosen(
    config: Config, task: TaskName | None, folder: Path, found: Mapping[str, Mapping[str, Path]], case: str
) -> str:
    """The case that is asked for, else the worst one of an evaluation, else the first."""
    if case:
        if case not in found:
            raise BadDataError(f"{plain(folder)}: no prediction of {plain(unknown('case', case, list(found)))}")
        return case
    worst = _worst(config, task, folder)
    chosen = worst if worst in found else next(iter(found))
    why = "the worst" if chosen == worst else "the first"
    say(f"{plain(chosen)}: {why} of {len(found)} cases; --case shows another")
    return chosen


def _worst(config: Config, task: TaskName | None, folder: Path) -> str:
    table = folder / cases_file("test")
    if task is None or not table.is_file():
        return ""
    metric, higher = next(iter(load(Facts, task, config).metrics.items()))
    values = {str(row["case"]): float(row[metric]) for row in read_rows(table, [metric])}
    known = {name: value for name, value in values.items() if value == value}
    return (min if higher else max)(known, key=lambda name: (known[name], name), default="")


def _results(folder: Path) -> list[Mapping[str, Any]]:
    """Of an evaluation, or of a folder of evaluations; nothing of what is no evaluation's."""
    read = [read_json(path) for path in (folder / METRICS, *sorted(folder.glob(f"*/{METRICS}"))) if path.is_file()]
    return [result if isinstance(result, dict) else {} for result in read]


def _task(results: Sequence[Mapping[str, Any]]) -> TaskName | None:
    """The first evaluation's."""
    task = results[0].get("task") if results else None
    return task if task in TASKS else None


def _prepared(task: TaskName | None, results: Sequence[Mapping[str, Any]], viewing: Viewing, case: str) -> Path | None:
    """The prepared case of evaluations, if the working folder has the data that they are of."""
    if task is None or not (layout.prepared(task) / "manifest.json").is_file():
        return None
    data = Manifest.read(layout.prepared(task), task).fingerprint()
    if any(result.get("data_sha256") != data for result in results):
        say(f"{plain(layout.prepared(task))}: other data than was evaluated, so left aside")
        return None
    places = (layout.prepared(task) / split / viewing.scan_name(case) for split in ("test", "val"))
    return next((path for path in places if path.is_file()), None)


def _free(name: str, taken: Sequence[str]) -> str:
    number = 2
    unused = name
    while unused in taken:
        unused, number = f"{name} {number}", number + 1
    return unused


def _listed(found: Mapping[str, Mapping[str, Path]]) -> str:
    names = [plain(name) for name in found]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"there are {', '.join(names[:5])}{more}"
