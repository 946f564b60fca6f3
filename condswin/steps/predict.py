"""Step: predict files as they came from the scanner."""

from pathlib import Path

from condswin.config import Config
from condswin.errors import BadDataError
from condswin.progress import track
from condswin.serving import serve


def predict(config: Config, inputs: list[Path], *, model: str, out: Path, force: bool = False) -> list[Path]:
    """Writes one prediction per input file.

    Args:
        config: Parameters; see `serve`.
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
    served = serve(config, model)
    if not force:
        served.refuse_unlike(inputs)
    return [served.predict(path, out) for path in track(inputs, "predict", total=len(inputs))]
