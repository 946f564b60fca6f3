"""Step: predict files as they came from the scanner."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from condswin.config.root import Config
from condswin.config.task import IngestConfig
from condswin.errors import BadDataError, BadFileError
from condswin.kinds import kind_of
from condswin.listing import list_files, summary
from condswin.outputs import open_output, refuse_equal
from condswin.plain import plain
from condswin.progress import track
from condswin.serving import Served, local_model, serve_together


@dataclass
class Result:
    """What became of one input.

    Attributes:
        input: The file, as it was given or found in a folder that was given.
        status: `refused` before anything was predicted, `failed` while it was; `left`: not tried, as others were
            refused.
        outputs: The files written, the prediction first.
        warnings: What was assumed or changed on the way, a sentence each.
        error: Why there is no prediction, a line.
        seconds: Time it took.
        unlike: It was refused because it is far from what the model was trained on.
    """

    input: Path
    status: Literal["predicted", "refused", "failed", "left"] = "left"
    outputs: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0
    unlike: bool = False

    def record(self, model: str) -> dict[str, Any]:
        """The result as JSON."""
        return {
            "input": str(self.input),
            "output": str(self.outputs[0]) if self.outputs else None,
            "outputs": [str(path) for path in self.outputs],
            "status": self.status,
            "model": model,
            "seconds": round(self.seconds, 3),
            "warnings": self.warnings,
            "error": self.error or None,
        }


def predict(
    config: Config,
    inputs: list[Path],
    *,
    model: str,
    further: Sequence[str] = (),
    out: Path,
    forms: Sequence[str] = (),
    force: bool = False,
    overwrite: bool = False,
    tell: Callable[[Result, str], None] = lambda result, model: None,
    note: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Writes one prediction per input file.

    Args:
        config: Parameters; see `serve`.
        inputs: fastMRI HDF5 files, undersampled or not, CT NIfTI volumes, or folders of either.
        model: Model folder, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        further: Models whose predictions are averaged with its own; see `serve_together`.
        out: Folder for the predictions.
        forms: What to write beside each prediction: `png`, `nifti`.
        force: Predict files too that are far from what the model was trained on.
        overwrite: Write into a folder that holds other files too.
        tell: Called with each input's result, once it is known, and the model's address.
        note: Called with what is to be said of a folder that was given.

    Returns:
        The files written.

    Raises:
        BadDataError: An input does not exist, or cannot be used, or is far from what the model was trained on and
            `force` is not set: nothing is predicted then. Or a prediction failed: the others are there.
        OutputError: Two inputs would be written to one file, or writing to `out` would hurt something.
    """
    if missing := [str(path) for path in inputs if not path.exists()]:
        raise BadDataError(f"{', '.join(missing)}: no such file")
    # The place is refused before a model is fetched.
    models = [model, *further]
    places = [*inputs, *(place for each in models for place in local_model(each))]
    output = open_output(out, step="predict", inputs=places, overwrite=overwrite, shared=True)
    served = serve_together(config, models)
    files = _files(served, inputs, out, note)
    names = {path: _names(served, path, forms) for path in files}
    refuse_equal(names)
    results = [_checked(served, path, force=force) for path in files]
    if refused := [result for result in results if result.status == "refused"]:
        for result in results:
            tell(result, served.model)
        advice = [served.advice] if any(result.unlike for result in refused) else []
        raise BadDataError("\n".join([*(result.error for result in refused), *advice]))
    output.inputs += files
    output.claim([name for paths in names.values() for name in paths])
    for result in track(results, "predict", total=len(results)):
        _predict(served, result, out, forms)
        tell(result, served.model)
    written = [path for result in results for path in result.outputs]
    output.finish([name for result in results if result.outputs for name in names[result.input]])
    if failed := [result.error for result in results if result.status == "failed"]:
        raise BadDataError("\n".join(failed))
    return written


def _files(served: Served, inputs: list[Path], out: Path, note: Callable[[str], None]) -> list[Path]:
    """All files to predict, those of folders among them; a file that is given twice counts once."""
    found: dict[tuple[Path, str], Path] = {}
    for path in inputs:
        for file in _inside(served, path, out, note) if path.is_dir() else [path]:
            found.setdefault((file.resolve(), file.name), file)
    return list(found.values())


def _inside(served: Served, folder: Path, out: Path, note: Callable[[str], None]) -> list[Path]:
    """Files of the model's kind in a folder and below, but for those below the output.

    Raises:
        BadDataError: There is none.
    """
    serving = served.serving
    if not serving.suffixes:
        raise BadDataError(f"{folder}: is a folder; give its files to a model for {served.purpose}")
    listing = list_files(folder, serving.suffixes, IngestConfig())
    others = [folder / name for names in listing.skipped.values() for name in names]
    chosen = []
    for path in listing.files:
        ours = out.resolve() in path.resolve().parents
        if why := "below the output folder" if ours else serving.passed_over(path):
            listing.skip(path, why)
        else:
            chosen.append(folder / path.relative_to(listing.source))
    left = summary(listing.skipped)
    if not chosen:
        kind = next((f"; {plain(path)} is {kind}" for path in others if (kind := _kind(path))), "")
        raise BadDataError(
            f"{folder}: holds nothing for this model, which is for {served.purpose} and takes {serving.takes}{kind}"
            + (f" (passed over {left})" if left else "")
        )
    note(f"{folder}: {len(chosen)} to predict{f', passed over {left}' if left else ''}")
    return chosen


def _kind(path: Path) -> str:
    try:
        return "" if path.name.startswith(".") else kind_of(path)
    except OSError:
        return ""


def _names(served: Served, source: Path, forms: Sequence[str]) -> list[str]:
    names = served.serving.output_names(source)
    return list(dict.fromkeys([*names, *(_form_name(served, names[0], form) for form in forms)]))


def _form_name(served: Served, prediction: str, form: str) -> str:
    """Name of a prediction in another form.

    Raises:
        BadDataError: The model's task has no such form.
    """
    known = served.serving.forms
    if form not in known:
        raise BadDataError(f"--{form}: predictions of a model for {served.purpose} cannot be written so")
    ending = ".nii.gz" if prediction.endswith(".nii.gz") else Path(prediction).suffix
    return f"{prediction.removesuffix(ending)}{known[form]}"


def _checked(served: Served, path: Path, *, force: bool) -> Result:
    try:
        served.refuse_kind(path)
        reasons = [] if force else served.refusals(path)
    except BadFileError as error:
        return Result(path, "refused", error=str(error))
    if reasons:
        return Result(path, "refused", error=f"{plain(path)}: {'; '.join(reasons)}", unlike=True)
    return Result(path)


def _predict(served: Served, result: Result, out: Path, forms: Sequence[str]) -> None:
    """Predicts an input, and notes in its result what became of it."""
    started = time.monotonic()
    try:
        predicted = served.predict(result.input, out)
        result.warnings += predicted.notes
        written = [predicted.path]
        for form in forms:
            path = out / _form_name(served, predicted.path.name, form)
            if path != predicted.path:
                result.warnings += served.serving.write_form(form, result.input, predicted.path, path)
                written.append(path)
        result.status, result.outputs = "predicted", written
    except (BadFileError, BadDataError) as error:
        result.status, result.error = "failed", str(error)
    result.seconds = time.monotonic() - started
