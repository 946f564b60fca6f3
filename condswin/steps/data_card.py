"""Step: the data card of an ingested dataset, and its drift from a reference."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

from condswin.config.names import SPLITS, TaskName
from condswin.config.root import Config
from condswin.config.task import CardedTaskConfig
from condswin.drift import FORMAT, drift, limit_of
from condswin.errors import BadDataError, BadFileError, ConfigError, DriftError
from condswin.files import read_json, write_json
from condswin.manifest import Manifest
from condswin.outputs import open_output
from condswin.progress import progress, say
from condswin.reporting.figures import data_uri, histograms, png
from condswin.reporting.html import write_page
from condswin.tasks.card import DataCard, Described
from condswin.tasks.loading import load

CARD = "card.json"
PAGE = "card.html"
#: Cases of which pictures are shown.
SAMPLES = 8


def data_card(
    config: Config,
    task_name: TaskName,
    *,
    ingested: Path,
    out: Path,
    reference: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Describes an ingested dataset.

    Args:
        config: Parameters; the task's `drift` says what is drift, and from what.
        task_name: Which task.
        ingested: Output of the ingest step.
        out: Folder for `card.json` and `card.html`, one file with all pictures.
        reference: `card.json` of the data that the model was trained on, to compare with; None for the parameters'.
        overwrite: Write into a folder that holds other files too.

    Returns:
        What `card.json` holds. With a reference, `drift` has `distances` by statistic and fact, the `largest`, the
        `limit` (the threshold, or what chance does to so few volumes if that is more) and whether it is `exceeded`.

    Raises:
        BadDataError: One content is in two splits.
        BadFileError: A file or the reference cannot be read.
        ConfigError: The task has no data card.
        OutputError: Writing to `out` would hurt something.
        DriftError: The data drifted; card and page are written.
    """
    section = config.task(task_name)
    if not isinstance(section, CardedTaskConfig):
        raise ConfigError(f"{task_name}: has no data card; give the task a part `card` (docs/how-to/extending.md)")
    manifest = Manifest.read(ingested, task_name)
    manifest.verify(ingested)
    if reference is None and section.drift.reference is not None:
        reference = Path(section.drift.reference)
    inputs = [ingested, manifest.root(ingested), *([reference] if reference else [])]
    output = open_output(out, step="data-card", inputs=inputs, overwrite=overwrite)
    part = load(DataCard, task_name, config)
    known = _read(reference, task_name, part) if reference else None
    cases = [
        (case, {role: manifest.path(ingested, file) for role, file in case.files.items()}) for case in manifest.cases
    ]
    card = describe(part, manifest, cases)
    if known is not None:
        distances, limit = drift(card, known), limit_of(card, known, section.drift.threshold)
        largest = max(distances.values())
        card["drift"] = {"distances": distances, "largest": largest, "limit": limit, "exceeded": largest > limit}
        if limit == 1:
            say(f"{card['cases']} volumes against {known['cases']}: too few to tell drift from chance")
    shown = {
        "Statistics of the volumes.": histograms(card["statistics"], part.statistics, card["counts"], part.compared),
        **part.figures(cases[:: max(len(cases) // SAMPLES, 1)][:SAMPLES]),
    }
    output.claim([PAGE, CARD])
    write_page(
        out / PAGE,
        "card.html",
        card=card,
        titles=part.statistics,
        figures={caption: data_uri(png(figure)) for caption, figure in shown.items()},
    )
    write_json(out / CARD, card)
    output.finish([PAGE, CARD])
    if known is not None and card["drift"]["exceeded"]:
        raise DriftError(
            f"{ingested}: drifted by {card['drift']['largest']:.3f} from {reference}, limit "
            f"{card['drift']['limit']:.3f}; see {out / PAGE}",
            card,
        )
    return card


def describe(part: DataCard, manifest: Manifest, cases: Sequence[Described]) -> dict[str, Any]:
    """Numbers of an ingested dataset, JSON-able, without anything that identifies a person.

    Args:
        part: The task's.
        manifest: Of the dataset.
        cases: All of it.

    Raises:
        BadDataError: One content is in two splits.
        BadFileError: A file is unusable.
    """
    with progress(f"describe {manifest.task}", len(cases)) as advance, ThreadPoolExecutor(cpu_count()) as pool:
        measured = []
        for values in pool.map(lambda case: part.measure(*case), cases):
            measured.append(values)
            advance()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for case in manifest.cases:
        for title, value in part.facts(case).items():
            counts[title][value] += 1
    return {
        "format": FORMAT,
        "task": manifest.task,
        "data_sha256": manifest.fingerprint(),
        "cases": len(manifest.cases),
        "rejected": len(manifest.rejected),
        "splits": {
            split: {
                "cases": sum(case.split == split for case in manifest.cases),
                "patients": len({case.patient for case in manifest.cases if case.split == split}),
                "slices": sum(part.slices(case) for case in manifest.cases if case.split == split),
            }
            for split in SPLITS
        },
        "compared": list(part.compared),
        "counts": {title: dict(values) for title, values in counts.items()},
        "duplicates": duplicates(manifest),
        "statistics": {name: [values[name] for values in measured] for name in part.statistics},
    }


def duplicates(manifest: Manifest) -> list[list[str]]:
    """Names of cases with equal content, a list per content.

    Raises:
        BadDataError: They are in different splits.
    """
    by_content: dict[str, list[str]] = defaultdict(list)
    split_of = {case.name: case.split for case in manifest.cases}
    for case in manifest.cases:
        # Of images whose files may differ, the digest of what they show.
        content = case.details.get("image_sha256", next(iter(case.files.values())).sha256)
        by_content[str(content)].append(case.name)
    groups = [sorted(names) for names in by_content.values() if len(names) > 1]
    for names in groups:
        if len({split_of[name] for name in names}) > 1:
            listed = ", ".join(f"{name} ({split_of[name]})" for name in names)
            raise BadDataError(f"{listed} have the same content in different splits; remove all but one, ingest again")
    return groups


def _read(path: Path, task_name: TaskName, part: DataCard) -> Mapping[str, Any]:
    known = read_json(path)
    if not isinstance(known, dict) or "statistics" not in known:
        raise BadFileError(path, "not a data card; `condswin data-card` of the training data writes one")
    if known.get("task", task_name) != task_name:
        raise BadFileError(
            path, f"the data card of {known['task']} data, {task_name} is compared; give one of such data"
        )
    if known.get("format") != FORMAT or set(known["statistics"]) != set(part.statistics):
        raise BadFileError(
            path, f"a data card of another version of condswin; run `condswin data-card {task_name}` of that data again"
        )
    return known
