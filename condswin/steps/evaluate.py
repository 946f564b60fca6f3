"""Step: predict the validation and test cases with a trained model, score the files, draw pictures."""

from functools import partial
from pathlib import Path
from typing import Any

from condswin.checksums import checksums
from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.devices import device
from condswin.errors import BadDataError
from condswin.evaluation.folder import known_evaluation, write_evaluation
from condswin.leaks import refuse_trained_on
from condswin.manifest import Manifest
from condswin.networks.saving import WEIGHTS, load_model
from condswin.outputs import open_output
from condswin.progress import say
from condswin.tasks.loading import load
from condswin.tasks.prediction import Prediction
from condswin.validity import make_key


def evaluate(
    config: Config, task_name: TaskName, *, model: Path, prepared: Path, out: Path, overwrite: bool = False
) -> dict[str, Any]:
    """Scores a trained model per case.

    Args:
        config: Parameters.
        task_name: Which task.
        model: Model folder.
        prepared: Output of the prepare step.
        out: Folder for `predictions/<split>/`, `<split>-cases.csv`, `pictures/` and `metrics.json`. A whole evaluation
            of the same weights, data, parameters and code is kept.
        overwrite: Write into a folder that holds other files too.

    Returns:
        What `metrics.json` holds: per split (`val` where there is one, `test`) a summary per metric, and one per
        reference method and metric.

    Raises:
        BadDataError: There is no test case, the model was made for the other task, or it was trained on cases that it
            is to be scored on.
        OutputError: Writing to `out` would hurt something.
    """
    manifest = Manifest.read(prepared, task_name)
    manifest.verify(prepared)
    network, spec = load_model(model)
    if spec.task != task_name:
        raise BadDataError(f"{model}: a model for {spec.task}, {task_name} was asked for")
    if not refuse_trained_on(spec, manifest, prepared, "val", "test"):
        say(f"{model}: does not say which cases it was trained on, so those that it is scored on may be among them")
    prediction = load(Prediction, task_name, config)
    place = device(config.task(task_name).train.device)
    weights = checksums(model).sha256(model / WEIGHTS)
    key = make_key(
        "evaluate",
        task_name,
        parameters={"predict": prediction.parameters(), "network": spec.recipe(), "device": place.type},
        inputs={"weights": weights, "data": manifest.fingerprint()},
    )
    output = open_output(out, step="evaluate", inputs=[model, prepared], overwrite=overwrite)
    return known_evaluation(output, key) or write_evaluation(
        config,
        manifest,
        partial(prediction.predict, network.to(place)),
        prepared=prepared,
        output=output,
        key=key,
        variant=spec.variant,
        params_sha256=spec.provenance.get("params_sha256", ""),
        weights_sha256=weights,
    )
