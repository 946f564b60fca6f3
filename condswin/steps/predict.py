"""Step: predict files as they came from the scanner."""

from pathlib import Path

from condswin.config import TASKS, Config, parse_config
from condswin.errors import BadDataError
from condswin.progress import track
from condswin.registry.package import load_registered
from condswin.steps.evaluate import device
from condswin.tasks import get_task


def predict(config: Config, inputs: list[Path], *, model: str, out: Path, force: bool = False) -> list[Path]:
    """Writes one prediction per input file.

    Args:
        config: Parameters; how inputs are prepared comes from the model's own, as it was trained. So do the training's
            settings (slices are cut as in training), but for the device.
        inputs: fastMRI HDF5 files, undersampled or not, or CT NIfTI volumes.
        model: Model folder, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        out: Folder for the predictions.
        force: Predict files too that are far from what the model was trained on.

    Returns:
        The files written.

    Raises:
        BadDataError: An input does not exist, or two inputs have one name,
            or an input is far from what the model was trained on and `force` is not set.
        BadFileError: An input cannot be used; nothing is written for it.
    """
    if missing := [str(path) for path in inputs if not path.is_file()]:
        raise BadDataError(f"{', '.join(missing)}: no such file")
    names = [path.name for path in inputs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadDataError(f"{', '.join(twice)}: given twice from different folders; predict them into different ones")
    network, spec = load_registered(model, config)
    if spec.task not in TASKS:
        raise BadDataError(f"{model}: made for the task {spec.task!r}; there are: {', '.join(TASKS)}")
    values = config.model_dump(mode="json")
    prepared = "undersample" if spec.task == "reconstruction" else "prepare"
    known, section = spec.provenance.get("parameters", {}), values[spec.task]
    section[prepared] = known.get("data", section[prepared])
    section["train"] = {**known.get("train", section["train"]), "device": section["train"]["device"]}
    trained = parse_config(values, origin=f"{model}: parameters it was trained with")
    task = get_task(spec.task, trained)
    if not force:
        far = [f"{path}: {reason}" for path in inputs for reason in task.refusals(path)]
        if far:
            raise BadDataError(
                "\n".join([*far, f"{model} has not seen such data; take another model, or --force to go on regardless"])
            )
    network.to(device(config, spec.task)).eval()
    return [task.predict_raw(network, path, out) for path in track(inputs, "predict", total=len(inputs))]
