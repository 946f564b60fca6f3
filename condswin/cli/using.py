"""Commands: what networks are for."""

import json
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, cast

import typer

from condswin.cli.manners import answer, commands
from condswin.cli.options import (
    DEFAULT_PARAMS,
    Overwrite,
    Params,
    Registered,
    Settings,
    Task,
    local,
    read_or_demo,
    require,
)
from condswin.errors import BadDataError
from condswin.outputs import check_file, check_output
from condswin.plain import plain
from condswin.suggest import unknown

app = typer.Typer()
command = commands(app, "Use")


@command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(help="fastMRI HDF5 files, CT NIfTI volumes, or folders of them.")],
    models: Annotated[
        list[str],
        typer.Option(
            "--model",
            help="Model folder, models:/NAME@champion or models:/NAME/VERSION. May be repeated, for the networks of "
            "folds: class probabilities are averaged (CT).",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the predictions.")],
    force: Annotated[bool, typer.Option(help="Predict also what is far from the model's training data.")] = False,
    png: Annotated[bool, typer.Option("--png", help="A picture of one slice beside each prediction.")] = False,
    nifti: Annotated[bool, typer.Option("--nifti", help="MRI volumes as NIfTI beside the HDF5.")] = False,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Reconstruct k-space files or segment CT volumes, with or without targets.

    Of a folder, all files of the model's kind are predicted, those below it too.

    Example: condswin predict --model models:/condswin-reconstruction@champion scans/ --out reconstructions/
    """
    config = read_or_demo(None, params, settings)
    if missing := [str(path) for path in inputs if not (path.is_file() or path.is_dir())]:
        raise BadDataError(f"{', '.join(missing)}: no such file")
    check_output(out, step="predict", inputs=inputs, overwrite=overwrite)
    require(*local(models))
    from condswin.steps.predict import Result
    from condswin.steps.predict import predict as step

    def tell(result: Result, address: str) -> None:
        def show() -> None:
            for warning in result.warnings:
                print(plain(f"{result.input}: {warning}"), file=sys.stderr)
            for path in result.outputs:
                print(plain(path), flush=True)

        answer(result.record(address), show)

    forms = [form for form, wanted in (("png", png), ("nifti", nifti)) if wanted]
    step(config, inputs, model=models[0], further=models[1:], out=out, forms=forms, force=force, overwrite=overwrite,
         tell=tell, note=lambda text: print(plain(text), file=sys.stderr))  # fmt: skip


@command()
def serve(
    model: Registered,
    host: Annotated[str, typer.Option(help="Address to listen on; whoever reaches it may ask.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 5001,
    mlserver: Annotated[
        Path | None, typer.Option(help="Program of MLServer in an environment of its own: V2 protocol instead.")
    ] = None,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Answer HTTP requests with a registered model, which is verified first.

    POST a file to /files?name=NAME, or arrays to /invocations as MLflow has it.

    Example: condswin serve models:/condswin-reconstruction@champion
    """
    config = read_or_demo(None, params, settings)
    from condswin.steps.serve import serve as step

    if mlserver is not None and not mlserver.is_file():
        raise BadDataError(f"{mlserver}: no such file; infra/mlserver.txt says how to install it")

    def tell(exact: str, url: str) -> None:
        answer({"model": exact, "url": url}, f"{exact}: {url}")

    step(config, model, host=host, port=port, mlserver=mlserver, tell=tell)


@command("serve-manifest")
def serve_manifest(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION.")] = "",
    out: Annotated[Path | None, typer.Option(help="File to write; default: the terminal.")] = None,
    check: Annotated[Path | None, typer.Option(help="Instead: end with status 3 if this manifest is stale.")] = None,
    runtime: Annotated[
        str, typer.Option(help="mlserver (KServe's own, verifies nothing) or condswin (a container that verifies).")
    ] = "mlserver",
    artifacts: Annotated[str, typer.Option(help="The MLflow server's --artifacts-destination, where it has one.")] = "",
    name: Annotated[str, typer.Option(help="Of the service; default: the model's.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is not condswin's.")] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Write a KServe InferenceService that pins what an alias means now, or tell whether it still does.

    Examples:

    condswin serve-manifest models:/condswin-reconstruction@champion --artifacts s3://models/mlflow --out service.json

    condswin serve-manifest --check service.json
    """
    if bool(model) == (check is not None):
        raise typer.BadParameter("give a model, or --check FILE")
    if runtime not in ("mlserver", "condswin"):
        raise typer.BadParameter(unknown("runtime", runtime, ("mlserver", "condswin")))
    config = read_or_demo(None, params, settings)
    require(*([check] if check else []))
    from condswin.steps.serve_manifest import Runtime, manifest, require_current, write_manifest

    if check is not None:
        pinned = require_current(config, check)
        answer({"manifest": check, "pins": pinned}, f"{check}: pins {pinned}, which is right")
        return
    made = manifest(config, model, runtime=cast(Runtime, runtime), artifacts=artifacts, name=name)
    if out is not None:
        write_manifest(out, made, overwrite=overwrite)
    answer(made, json.dumps(made, indent=2) if out is None else str(out))


@command()
def shadow(
    task: Task,
    inputs: Annotated[list[Path], typer.Argument(help="Files as they come from the scanner, or folders of them.")],
    champion: Annotated[str, typer.Option(help="Default: the alias of that name.")] = "",
    challenger: Annotated[str, typer.Option(help="Default: the alias of that name.")] = "",
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Let challenger and champion predict unlabelled files: how far they disagree, and which files are unlike training.

    Example: condswin shadow reconstruction scans/
    """
    config = read_or_demo(task, params, settings)
    if missing := [str(path) for path in inputs if not path.exists()]:
        raise BadDataError(f"{', '.join(missing)}: no such file")
    from condswin.reporting.text import shadow_line
    from condswin.steps.shadow import shadow as step

    found = step(
        config,
        task,
        inputs,
        champion=champion,
        challenger=challenger,
        tell=lambda case: answer(case.record(), plain(shadow_line(case.record()))),
    )
    record = found.record()
    lines = [
        f"{role} {record[role]}: {count} of {record['files']} files are unlike what it was trained on"
        for role, count in record["unlike_training_data"].items()
    ]
    answer(record, "\n".join([*lines, shadow_line({"input": f"mean of {record['compared']}", **record["mean"]})]))


@command()
def view(
    what: Annotated[
        Path,
        typer.Argument(help="A file (k-space, reconstruction, CT), or a folder of predict, evaluate or ablate."),
    ],
    prediction: Annotated[
        list[Path] | None, typer.Option(help="Of the same case: a file, or a folder of them. May be repeated.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="The target, if it is neither in the file nor beside it.")
    ] = None,
    case: Annotated[str, typer.Option(help="Of a folder. Default: the worst by its scores, else the first.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write the page, one file, instead of opening it.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Say the page's address, and open nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is not condswin's.")] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Show a case on a page of this machine: k-space, mask, images and errors; CT with segmentations over it.

    Without --out the page is served on 127.0.0.1 until Ctrl-C, and is nowhere afterwards.

    Examples:

    condswin view scans/file1.h5 --prediction reconstructions/

    condswin view evaluation/segmentation/swin --case volume-9 --out volume-9.html
    """
    config = read_or_demo(None, params, settings)
    if out is not None:
        check_file(out, overwrite=overwrite)
    from condswin.steps.view import view as step

    show = partial(step, config, what, reference=reference, predictions=prediction or [], case=case)
    if out is not None:
        said = plain(show(out=out, overwrite=overwrite))
        answer({"out": out}, said)
        return
    from condswin.cli.local_page import serve_page

    with TemporaryDirectory(prefix="condswin-view-") as folder:
        page = show(out=Path(folder, "view.html")).read_bytes()
    serve_page(page, browser=not no_browser)


@command()
def export(
    model: Annotated[Path, typer.Argument(help="Model folder, as train writes it.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    format: Annotated[Literal["pt2", "onnx"], typer.Option(help="Of torch.export, or ONNX.")] = "pt2",
    size: Annotated[
        int, typer.Option(min=8, help="Height and width of its images, pixels; the batch stays free.")
    ] = 256,
    overwrite: Overwrite = False,
) -> None:
    """Write a trained network as a program of PyTorch or ONNX, checked against the network itself.

    Example: condswin export models/reconstruction/swin --format pt2 --out swin.pt2 --size 320
    """
    check_file(out, overwrite=overwrite)
    require(model)
    from condswin.steps.export import export_model

    error = export_model(model, out, kind=format, size=size, overwrite=overwrite)
    answer({"out": out, "largest_difference": error}, f"{out}: differs from the network by at most {error:.1e}")
