"""Step: reconstruct some scans by every means, for one table and one picture per file."""

import io
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from condswin import layout
from condswin.config.root import Config
from condswin.errors import ConfigError
from condswin.evaluation.results import METRICS
from condswin.evaluation.run import Predictor
from condswin.files import atomic_file, read_json
from condswin.fourier import FloatArray
from condswin.mri.compressed_sensing import write_reconstruction
from condswin.mri.config import ReconstructionConfig
from condswin.mri.facts import ReconstructionFacts
from condswin.mri.metrics import volume_metrics
from condswin.mri.pictures import picture_images, picture_scan
from condswin.mri.prepared import read_mask
from condswin.mri.reading import PREDICTION, ZERO_FILLED, VolumeReader
from condswin.mri.undersample import prepare_scan
from condswin.outputs import open_output, refuse_equal
from condswin.plain import cell
from condswin.serving import Served, local_model, serve

TABLE = "reconstructions.md"


def gallery(
    config: Config,
    inputs: Sequence[Path],
    *,
    models: Sequence[str],
    weight: float | None,
    out: Path,
    overwrite: bool = False,
) -> list[Path]:
    """Writes a Markdown table of volume metrics and a picture of a middle slice per file.

    Fully sampled files are undersampled first, others keep their mask. Without a target there are no metrics, and the
    picture shows the mask in place of errors.

    Args:
        config: Parameters; `reconstruction.undersample` names the masks, `reconstruction.ingest.multicoil` what to do
            with multi-coil files.
        inputs: Files with k-space.
        models: Folders or registry addresses of networks; a row and a column each, named by their last part.
        weight: Of the total variation; None for the one that `condswin baseline` chose on validation cases.
        out: Folder.
        overwrite: Write into a folder that holds other files too.

    Returns:
        The files written.

    Raises:
        BadFileError: A file is unusable.
        ConfigError: No weight is given, and `condswin baseline` has not run.
        BadDataError: A model is not for reconstruction, or has not seen such masks.
    """
    if weight is None:
        chosen = layout.evaluation("reconstruction", ReconstructionFacts.reference_method) / METRICS
        if not chosen.is_file():
            raise ConfigError(
                f"--weight: none given, and no {chosen} that says which is best; run `condswin baseline reconstruction`"
            )
        weight = float(read_json(chosen)["settings"]["weight"])
    refuse_equal({path: [f"{path.stem}.png"] for path in inputs})
    local = [folder for model in models for folder in local_model(model)]
    output = open_output(out, step="gallery", inputs=[*inputs, *local], overwrite=overwrite)
    names = [*(f"{path.stem}.png" for path in inputs), TABLE]
    methods: dict[str, Predictor] = {"compressed sensing": partial(write_reconstruction, weight=weight)}
    methods |= {Path(model).name: _guarded(serve(config, model)) for model in models}
    output.claim(names)
    lines = ["| file | reconstruction | PSNR | SSIM | NMSE |", "|---|---|---|---|---|"]
    written = []
    section = config.section(ReconstructionConfig)
    with tempfile.TemporaryDirectory() as scratch:
        for path in inputs:
            prepared = Path(scratch) / path.name
            prepare_scan(path, prepared, section.undersample, section.ingest.multicoil)
            with VolumeReader(prepared) as reader:
                name = reader.target_name()
                target, mask = reader.read(name) if name else None, read_mask(reader)
                images, faster = {"zero-filled": reader.read(ZERO_FILLED)}, reader.attribute("true_acceleration")
            for name, method in methods.items():
                predicted = Path(scratch, name, f"{path.stem}.h5")
                method(prepared, predicted)
                with VolumeReader(predicted) as reader:
                    images[name] = reader.read(PREDICTION)
            for name, volume in images.items():
                lines.append(f"| {cell(path.name)}, {faster:.2f}x | {cell(name)} | {_scores(target, volume)} |")
            written.append(out / f"{path.stem}.png")
            title = f"{path.stem} ({faster:.2f}x)"
            figure = picture_scan(title, mask, images) if target is None else picture_images(title, target, images)
            with atomic_file(written[-1]) as temporary:
                drawn = io.BytesIO()
                figure.savefig(drawn, dpi=70)
                # Grey is all there is: a third of the bytes.
                Image.open(drawn).convert("L").save(temporary, format="PNG", optimize=True)
    written.append(out / TABLE)
    with atomic_file(out / TABLE) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    output.finish(names)
    return written


def _scores(target: FloatArray | None, volume: FloatArray) -> str:
    """Cells of the table."""
    if target is None:
        return "- | - | -"
    scores = volume_metrics(target, volume)
    return f"{scores['psnr']:.2f} | {scores['ssim']:.3f} | {scores['nmse']:.4f}"


def _guarded(network: Served) -> Predictor:
    """A network as a method among others, that refuses masks which it has not seen."""

    def predict(file: Path, out: Path) -> None:
        network.refuse_unlike([file])
        network.predict(file, out.parent)

    return predict
