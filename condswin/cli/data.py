"""Commands: from source files to what networks take."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from condswin import layout
from condswin.cli.options import DEFAULT_PARAMS, OptionalPath, Overwrite, Params, Settings, Task, read
from condswin.outputs import check_output

app = typer.Typer()
command = partial(app.command, rich_help_panel="Data")


@command("demo-data")
def demo_data(
    task: Task,
    out: OptionalPath = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Generate demo data in fastMRI's or LiTS's format.

    Example: condswin demo-data reconstruction
    """
    config = read(task, params, settings)
    target = out or layout.demo(task)
    check_output(target, step="demo-data", inputs=[], overwrite=overwrite)
    from condswin.steps.demo_data import demo_data as step

    count = step(config, task, out=target, overwrite=overwrite)
    print(f"{target}: {count} cases")


@command()
def ingest(
    task: Task,
    source: Annotated[str | None, typer.Option(help="Folder or s3:// prefix; default: from the parameters.")] = None,
    out: OptionalPath = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Check all files of a source, split them by patient, copy them with checksums.

    Example: condswin ingest reconstruction --source s3://bucket/fastmri
    """
    config = read(task, params, settings)
    target = out or layout.ingested(task)
    origin = source or config.task(task).source
    inputs = [] if origin.startswith("s3://") else [Path(origin)]
    check_output(target, step="ingest", inputs=inputs, overwrite=overwrite)
    from condswin.steps.ingest import ingest as step

    manifest = step(config, task, source=origin, out=target, overwrite=overwrite)
    counts = ", ".join(f"{count} {split}" for split, count in manifest.counts().items())
    print(f"{target}: {counts}, {len(manifest.rejected)} rejected")


Data = Annotated[Path | None, typer.Option(help="Output of ingest. Default: the place in dvc.yaml.")]


Shard = Annotated[str, typer.Option(help="Part i of n, counted from 0; run the parts anywhere, into one folder.")]


@command("data-card")
def data_card(
    data: Data = None,
    reference: Annotated[Path | None, typer.Option(help="card.json of the training data, to compare with.")] = None,
    out: OptionalPath = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Describe an ingested MRI dataset on one page; exit with status 3 if it drifted from a reference.

    Example: condswin data-card --data new/ --reference report/card-reconstruction/card.json
    """
    config = read("reconstruction", params, settings)
    target = out or layout.card("reconstruction")
    ingested = data or layout.ingested("reconstruction")
    check_output(target, step="data-card", inputs=[ingested], overwrite=overwrite)
    from condswin.steps.data_card import PAGE
    from condswin.steps.data_card import data_card as step

    card = step(config, ingested=ingested, out=target, reference=reference, overwrite=overwrite)
    print(target / PAGE)
    found = card.get("drift")
    if found:
        print(f"drift: {found['largest']:.3f}, limit {found['limit']:.3f}")


@command()
def prepare(
    task: Task,
    data: Data = None,
    out: OptionalPath = None,
    shard: Shard = "0/1",
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Make of ingested files what networks train on and are scored with; `undersample` and `prepare-ct` do the same.

    Example: condswin prepare reconstruction --shard 0/8
    """
    part, slash, parts = shard.partition("/")
    if not (slash and part.isdigit() and parts.isdigit()):
        raise typer.BadParameter(f"{shard!r} is not of the form i/n, e.g. 0/4", param_hint="--shard")
    config = read(task, params, settings)
    target, ingested = out or layout.prepared(task), data or layout.ingested(task)
    check_output(target, step="prepare", inputs=[ingested], overwrite=overwrite)
    from condswin.steps.prepare import prepare as step

    manifest = step(config, task, ingested=ingested, out=target, shard=(int(part), int(parts)), overwrite=overwrite)
    print(f"{target}: {'other shards are not done yet' if manifest is None else f'{len(manifest.cases)} cases'}")


@command()
def undersample(
    data: Data = None,
    out: OptionalPath = None,
    shard: Shard = "0/1",
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Undersample ingested k-space into fastMRI test-set files with target and zero-filled image.

    Example: condswin undersample --shard 0/8
    """
    prepare("reconstruction", data, out, shard, overwrite, params, settings)


@command("prepare-ct")
def prepare_ct(
    data: Data = None,
    out: OptionalPath = None,
    shard: Shard = "0/1",
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Cut ingested CT volumes into windowed slices.

    Example: condswin prepare-ct
    """
    prepare("segmentation", data, out, shard, overwrite, params, settings)
