"""Step: reconstruct some fully sampled files by every means, for one table and one picture per file."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from condswin import layout
from condswin.config import Config
from condswin.errors import ConfigError
from condswin.evaluation.results import METRICS
from condswin.files import atomic_file, read_json
from condswin.fourier import FloatArray
from condswin.mri.compressed_sensing import reconstruct_volume
from condswin.mri.metrics import psnr, ssim, volume_metrics
from condswin.mri.pictures import ERROR_GAIN
from condswin.mri.prepared import ZERO_FILLED
from condswin.mri.reading import PREDICTION, VolumeReader
from condswin.mri.undersample import prepare_undersampled
from condswin.outputs import open_output, refuse_equal
from condswin.serving import local_model, serve

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
        weight: Of the total variation; None for the one that `baseline` chose on validation cases.
        out: Folder.
        overwrite: Write into a folder that holds other files too.

    Returns:
        The files written.

    Raises:
        BadFileError: A file is unusable.
        ConfigError: No weight is given, and `baseline` has not run.
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
    output.claim(names)
    networks = {Path(model).name: serve(config, model) for model in models}
    lines = ["| file | reconstruction | PSNR | SSIM | NMSE |", "|---|---|---|---|---|"]
    written = []
    with tempfile.TemporaryDirectory() as scratch:
        for path in inputs:
            prepared = Path(scratch) / path.name
            mask = prepare_undersampled(path, prepared, config.reconstruction.undersample)
            with VolumeReader(prepared) as reader:
                target, zero_filled = reader.read(reader.target_name() or ""), reader.read(ZERO_FILLED)
            rivals = {"zero-filled": zero_filled, "compressed sensing": reconstruct_volume(prepared, weight)}
            for name, network in networks.items():
                network.refuse_unlike([prepared])
                with VolumeReader(network.predict(prepared, Path(scratch, name))) as reader:
                    rivals[name] = reader.read(PREDICTION)
            for name, images in rivals.items():
                scores = volume_metrics(target, images)
                lines.append(
                    f"| {path.name}, {mask.true_acceleration:.2f}x | {name} | {scores['psnr']:.2f} | "
                    f"{scores['ssim']:.3f} | {scores['nmse']:.4f} |"
                )
            written.append(out / f"{path.stem}.png")
            with atomic_file(written[-1]) as temporary:
                drawn = io.BytesIO()
                _picture(target, rivals).savefig(drawn, dpi=70)
                # Grey is all there is: a third of the bytes.
                Image.open(drawn).convert("L").save(temporary, format="PNG", optimize=True)
    written.append(out / TABLE)
    with atomic_file(out / TABLE) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    output.finish(names)
    return written


def _picture(target: FloatArray, rivals: dict[str, FloatArray]) -> Figure:
    """Target and rivals above their errors, middle slice, grey values to the slice's 99.8th percentile."""
    middle, maximum = len(target) // 2, float(target.max())
    truth = target[middle : middle + 1]
    white = float(np.percentile(truth, 99.8)) or maximum
    figure = Figure(figsize=(3 * (1 + len(rivals)), 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1 + len(rivals))
    for axis in axes.ravel():
        axis.axis("off")
    axes[0, 0].imshow(truth[0], cmap="gray", vmin=0, vmax=white)
    axes[0, 0].set_title("target")
    axes[1, 0].set_title(f"error x {ERROR_GAIN}", y=0.5)
    for column, (name, images) in enumerate(rivals.items(), start=1):
        image = images[middle : middle + 1]
        axes[0, column].imshow(image[0], cmap="gray", vmin=0, vmax=white)
        decibels, similarity = psnr(truth, image, maximum=maximum), ssim(truth, image, maximum=maximum)
        axes[0, column].set_title(f"{name}\nslice: {decibels:.2f} dB, SSIM {similarity:.3f}", fontsize=10)
        axes[1, column].imshow(np.abs(image - truth)[0], cmap="gray", vmin=0, vmax=white / ERROR_GAIN)
    return figure
