"""Step: predict files as they came from the scanner."""

from pathlib import Path

from condswin.config.root import Config
from condswin.errors import BadDataError
from condswin.outputs import open_output, refuse_equal
from condswin.progress import track
from condswin.serving import local_model, serve


def predict(
    config: Config, inputs: list[Path], *, model: str, out: Path, force: bool = False, overwrite: bool = False
) -> list[Path]:
    """Writes one prediction per input file.

    Args:
        config: Parameters; see `serve`.
        inputs: fastMRI HDF5 files, undersampled or not, or CT NIfTI volumes.
        model: Model folder, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        out: Folder for the predictions.
        force: Predict files too that are far from what the model was trained on.
        overwrite: Write into a folder that holds other files too.

    Returns:
        The files written.

    Raises:
        BadDataError: An input does not exist, or is far from what the model was trained on and `force` is not set.
        OutputError: Two inputs would be written to one file, or writing to `out` would hurt something.
        BadFileError: An input cannot be used; nothing is written for it.
    """
    if missing := [str(path) for path in inputs if not path.is_file()]:
        raise BadDataError(f"{', '.join(missing)}: no such file")
    output = open_output(out, step="predict", inputs=[*inputs, *local_model(model)], overwrite=overwrite, shared=True)
    served = serve(config, model)
    if not force:
        served.refuse_unlike(inputs)
    written = {path: served.serving.output_names(path) for path in dict.fromkeys(inputs)}
    refuse_equal(written)
    names = [name for paths in written.values() for name in paths]
    output.claim(names)
    predictions = [served.predict(path, out) for path in track(written, "predict", total=len(written))]
    output.finish(names)
    return predictions
