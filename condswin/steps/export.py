"""Step: a trained network as a program that needs no condswin: PyTorch's `pt2` or ONNX, free in the batch."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from condswin.errors import BadFileError, ConfigError
from condswin.files import atomic_file
from condswin.networks.saving import DESCRIPTION, WEIGHTS, load_model
from condswin.outputs import check_file

FORMATS = ("pt2", "onnx")
#: How far a program may be from its network, relative to the largest output.
TOLERANCE = 1e-4


def export_program(network: nn.Module, image: Tensor) -> ExportedProgram:
    """Traces a network for images of one size and any number of them.

    Args:
        network: In evaluation mode.
        image: (B, C, H, W) of the wanted size, B of at least 2 (PyTorch takes a 1 for a constant).
    """
    with torch.no_grad():
        # Window plans are made once per size. Made while tracing, they would be the tracer's and stay in the cache.
        network(image)
        return torch.export.export(network, (image,), dynamic_shapes=({0: Dim("batch", min=1)},))


def export_model(folder: Path, out: Path, *, kind: str, size: int, overwrite: bool = False) -> float:
    """Writes a saved network as a program and compares what the written file computes with the network.

    Args:
        folder: As `save_model` wrote it.
        out: File that is written, or left as it was if anything fails.
        kind: One of `FORMATS`.
        size: Height and width of the program's images, pixels.
        overwrite: Replace a file that is there.

    Returns:
        Largest absolute difference of outputs, at a batch other than the traced one.

    Raises:
        ConfigError: No such format, or what it needs is not installed, or an operator is not in it.
        OutputError: The file is there.
        BadFileError: The folder is unusable, or the written program computes something else.
    """
    if kind not in FORMATS:
        raise ConfigError(f"--format: no {kind!r}; there are: {', '.join(FORMATS)}")
    check_file(out, inputs=[folder / WEIGHTS, folder / DESCRIPTION], overwrite=overwrite)
    network, spec = load_model(folder)
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(2, spec.in_channels, size, size, generator=draw)
    program = export_program(network, image)
    other = torch.randn(3, spec.in_channels, size, size, generator=draw)
    with torch.inference_mode():
        expected = network(other)
    with atomic_file(out) as temporary:
        if kind == "pt2":
            torch.export.save(program, temporary)
            with torch.inference_mode():
                computed = torch.export.load(temporary).module()(other)
        else:
            computed = _write_onnx(program, temporary, other)
        error = float((computed - expected).abs().max())
        if not error <= TOLERANCE * float(expected.abs().max()):
            raise BadFileError(out, f"not written: the program's output differs from the network's by {error:.1e}")
    return error


def _write_onnx(program: ExportedProgram, path: Path, image: Tensor) -> Tensor:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter asks for it)
    except ImportError as error:
        raise ConfigError(f"--format onnx needs {error.name}: pip install 'condswin[onnx]'") from None
    try:
        written: Any = torch.onnx.export(program, dynamo=True, verbose=False, external_data=False)
        onnx.save(written.model_proto, path)
    except torch.onnx.OnnxExporterError as error:
        reasons = [str(error)]
        cause = error.__cause__
        while cause is not None:
            reasons.append(str(cause))
            cause = cause.__cause__
        # The exporter's own text is pages of advice; what a user needs is the operator, whose name is somewhere in it.
        found = re.search(r"aten[.:]+\w+", " ".join(reversed(reasons)))
        why = f"ONNX has no operator for {found[0]}" if found else reasons[-1].splitlines()[0]
        raise ConfigError(f"--format onnx: {why}; use --format pt2") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])
