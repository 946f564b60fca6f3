"""Step: predict the validation and test cases with a trained model, score the files, draw pictures."""

from functools import partial
from pathlib import Path
from typing import Any

from condswin.config import Config, Split, TaskName
from condswin.datasets import Manifest
from condswin.devices import device
from condswin.errors import BadDataError
from condswin.evaluation.results import METRICS, cases_file, draw_pictures, summaries, write_rows
from condswin.evaluation.run import evaluate_split
from condswin.files import write_json
from condswin.networks.saving import load_model
from condswin.tasks.facts import Facts
from condswin.tasks.judging import Judging
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures
from condswin.tasks.prediction import Prediction


def evaluate(config: Config, task_name: TaskName, *, model: Path, prepared: Path, out: Path) -> dict[str, Any]:
    """Scores a trained model per case.

    Args:
        config: Parameters.
        task_name: Which task.
        model: Model folder.
        prepared: Output of the prepare step.
        out: Folder for `predictions/<split>/`, `<split>-cases.csv`, `pictures/` and `metrics.json`.

    Returns:
        What `metrics.json` holds: per split (`val` where there is one, `test`) a summary per metric, and one per
        baseline and metric.

    Raises:
        BadDataError: There is no test case, or the model was made for the other task.
    """
    facts, judging = load(Facts, task_name, config), load(Judging, task_name, config)
    pictures, prediction = load(Pictures, task_name, config), load(Prediction, task_name, config)
    manifest = Manifest.read(prepared, task_name)
    manifest.verify(prepared)
    manifest.require("test", prepared)
    network, spec = load_model(model)
    if spec.task != task_name:
        raise BadDataError(f"{model}: a model for {spec.task}, {task_name} was asked for")
    network.to(device(config.task(task_name).train.device))
    splits: tuple[Split, ...] = ("val", "test") if manifest.counts()["val"] else ("test",)
    result: dict[str, Any] = {
        "task": task_name,
        "variant": spec.variant,
        "data_sha256": manifest.fingerprint(),
        "params_sha256": spec.provenance.get("params_sha256", ""),
    }
    for split in splits:
        predictions = out / "predictions" / split
        rows = evaluate_split(judging, partial(prediction.predict, network), prepared, split, predictions)
        write_rows(out / cases_file(split), rows)
        result[split] = summaries(facts, rows)
        if split == "test":
            draw_pictures(facts, pictures, rows, prepared / split, predictions, out / "pictures")
    write_json(out / METRICS, result)
    return result
