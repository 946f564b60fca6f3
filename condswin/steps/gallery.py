"""Step: reconstruct some fully sampled files by every means, for one table and one picture per file."""

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
from condswin.mri.compressed_sensing import write_reconstruction
from condswin.mri.config import ReconstructionConfig
from condswin.mri.metrics import volume_metrics
from condswin.mri.pictures import picture_images
from condswin.mri.prepared import ZERO_FILLED
from condswin.mri.reading import PREDICTION, VolumeReader
from condswin.mri.undersample import prepare_undersampled
from condswin.outputs import open_output, refuse_equal
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

    Args:
        config: Parameters; `reconstruction.undersample` names the masks.
        inputs: Fully sampled single-coil files.
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
        chosen = layout.evaluation("reconstruction", layout.COMPRESSED_SENSING) / METRICS
        if not chosen.is_file():
            raise ConfigError(f"--weight: none given, and no {chosen} that says which is best; run `condswin baseline`")
        weight = float(read_json(chosen)["weight"])
    refuse_equal({path: [f"{path.stem}.png"] for path in inputs})
    local = [folder for model in models for folder in local_model(model)]
    output = open_output(out, step="gallery", inputs=[*inputs, *local], overwrite=overwrite)
    names = [*(f"{path.stem}.png" for path in inputs), TABLE]
    methods: dict[str, Predictor] = {"compressed sensing": partial(write_reconstruction, weight=weight)}
    methods |= {Path(model).name: _guarded(serve(config, model)) for model in models}
    output.claim(names)
    lines = ["| file | reconstruction | PSNR | SSIM | NMSE |", "|---|---|---|---|---|"]
    written = []
    with tempfile.TemporaryDirectory() as scratch:
        for path in inputs:
            prepared = Path(scratch) / path.name
            mask = prepare_undersampled(path, prepared, config.section(ReconstructionConfig).undersample)
            with VolumeReader(prepared) as reader:
                target, zero_filled = reader.read(reader.target_name() or ""), reader.read(ZERO_FILLED)
            images = {"zero-filled": zero_filled}
            for name, method in methods.items():
                predicted = Path(scratch, name, f"{path.stem}.h5")
                method(prepared, predicted)
                with VolumeReader(predicted) as reader:
                    images[name] = reader.read(PREDICTION)
            for name, volume in images.items():
                scores = volume_metrics(target, volume)
                lines.append(
                    f"| {path.name}, {mask.true_acceleration:.2f}x | {name} | {scores['psnr']:.2f} | "
                    f"{scores['ssim']:.3f} | {scores['nmse']:.4f} |"
                )
            written.append(out / f"{path.stem}.png")
            with atomic_file(written[-1]) as temporary:
                drawn = io.BytesIO()
                title = f"{path.stem} ({mask.true_acceleration:.2f}x)"
                picture_images(title, target, images).savefig(drawn, dpi=70)
                # Grey is all there is: a third of the bytes.
                Image.open(drawn).convert("L").save(temporary, format="PNG", optimize=True)
    written.append(out / TABLE)
    with atomic_file(out / TABLE) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    output.finish(names)
    return written


def _guarded(network: Served) -> Predictor:
    """A network as a method among others, that refuses masks which it has not seen."""

    def predict(file: Path, out: Path) -> None:
        network.refuse_unlike([file])
        network.predict(file, out.parent)

    return predict
