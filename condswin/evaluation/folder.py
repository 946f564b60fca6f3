"""The folder that an evaluation leaves: predictions, tables of cases, pictures, `metrics.json`."""

from pathlib import Path
from typing import Any

from condswin.config.names import Split
from condswin.config.root import Config
from condswin.evaluation.results import METRICS, PICTURES, cases_file, draw_pictures, summaries, write_rows
from condswin.evaluation.run import Predictor, evaluate_split
from condswin.files import read_json, write_json
from condswin.manifest import Manifest
from condswin.outputs import Output
from condswin.tasks.facts import Facts
from condswin.tasks.judging import Judging
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures
from condswin.validity import Key


def known_evaluation(output: Output, key: Key) -> dict[str, Any] | None:
    """What `metrics.json` holds if the folder is the whole evaluation of a key; else None."""
    if not output.is_current(key.record()):
        return None
    result: dict[str, Any] = read_json(output.folder / METRICS)
    return result


def write_evaluation(
    config: Config, manifest: Manifest, predictor: Predictor, *, prepared: Path, output: Output, key: Key, **facts: Any
) -> dict[str, Any]:
    """Predicts and scores the validation cases, where there are any, and the test cases.

    Args:
        config: Parameters.
        manifest: Of the prepared data.
        predictor: A network, or a reference method.
        prepared: Output of the prepare step.
        output: Where to write.
        key: What decides the result.
        facts: Further content of `metrics.json`.

    Returns:
        What `metrics.json` holds: `facts`, and per split a summary per metric, and one per reference method and metric.

    Raises:
        BadDataError: There is no test case.
        OutputError: A file is in the way.
    """
    manifest.require("test", prepared)
    judging, shown = load(Judging, manifest.task, config), load(Facts, manifest.task, config)
    splits: tuple[Split, ...] = ("val", "test") if manifest.counts()["val"] else ("test",)
    names = [METRICS, *(cases_file(split) for split in splits)]
    possible = [
        f"predictions/{split}/{name}"
        for split in splits
        for case in judging.case_files(prepared / split)
        for name in judging.prediction_names(case)
    ]
    output.claim([*names, *possible, *(f"pictures/{name}.png" for name in PICTURES)])
    out = output.folder
    result: dict[str, Any] = {"task": manifest.task, "data_sha256": manifest.fingerprint(), **facts}
    for split in splits:
        predictions = out / "predictions" / split
        rows = evaluate_split(judging, predictor, prepared, split, predictions)
        write_rows(out / cases_file(split), rows)
        result[split] = summaries(shown, rows)
    pictures = load(Pictures, manifest.task, config)
    drawn = draw_pictures(shown, pictures, rows, prepared / "test", predictions, out / "pictures")
    write_json(out / METRICS, result)
    output.finish([*names, *possible, *(str(path.relative_to(out)) for path in drawn)], key.record())
    return result
