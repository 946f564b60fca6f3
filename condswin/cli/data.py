"""Commands: from source files to what networks take."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from condswin import layout
from condswin.cli.manners import answer, commands
from condswin.cli.options import DEFAULT_PARAMS, OptionalPath, Overwrite, Params, Settings, Task, read, require
from condswin.errors import DriftError
from condswin.files import MANIFEST
from condswin.outputs import check_output
from condswin.sources.keys import is_fetched

app = typer.Typer()
command = commands(app, "Data")


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
    source = config.task(task).source
    why = "" if count else f", since {task}.source is {source}; --set {task}.source={target} generates them"
    answer({"out": target, "cases": count}, f"{target}: {count} cases{why}")


@command()
def ingest(
    task: Task,
    source: Annotated[
        str | None, typer.Option(help="Folder, s3://... or dvc+.../MD5.dir; default: from the parameters.")
    ] = None,
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
    inputs = [] if is_fetched(origin) else [Path(origin)]
    check_output(target, step="ingest", inputs=inputs, overwrite=overwrite)
    from condswin.steps.ingest import ingest as step

    manifest = step(config, task, source=origin, out=target, overwrite=overwrite)
    counts = manifest.counts()
    record = {"out": target, "cases": counts, "rejected": manifest.rejected}
    listed = ", ".join(f"{count} {split}" for split, count in counts.items())
    answer(record, f"{target}: {listed}, {len(manifest.rejected)} rejected")


Data = Annotated[Path | None, typer.Option(help="Output of ingest. Default: the place in dvc.yaml.")]


Shard = Annotated[str, typer.Option(help="Part i of n, counted from 0; run the parts anywhere, into one folder.")]


@command("data-card")
def data_card(
    task: Task,
    data: Data = None,
    reference: Annotated[Path | None, typer.Option(help="card.json of the training data, to compare with.")] = None,
    out: OptionalPath = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Describe an ingested dataset on one page; exit with status 3 if it drifted from a reference.

    Example: condswin data-card segmentation --data new/ --reference report/card-segmentation/card.json
    """
    config = read(task, params, settings)
    target = out or layout.card(task)
    ingested = data or layout.ingested(task)
    check_output(target, step="data-card", inputs=[ingested], overwrite=overwrite)
    require(ingested / MANIFEST, *([reference] if reference else []))
    from condswin.steps.data_card import PAGE
    from condswin.steps.data_card import data_card as step

    def tell(card: Mapping[str, Any]) -> None:
        found = card.get("drift")
        drift = f"\ndrift: {found['largest']:.3f}, limit {found['limit']:.3f}" if found else ""
        answer({"page": target / PAGE, "card": card}, f"{target / PAGE}{drift}")

    try:
        card = step(config, task, ingested=ingested, out=target, reference=reference, overwrite=overwrite)
    except DriftError as error:
        tell(error.card)
        raise
    tell(card)


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
    require(ingested / MANIFEST)
    from condswin.steps.prepare import prepare as step

    manifest = step(config, task, ingested=ingested, out=target, shard=(int(part), int(parts)), overwrite=overwrite)
    cases = None if manifest is None else len(manifest.cases)
    said = "other shards are not done yet" if cases is None else f"{cases} cases"
    answer({"out": target, "cases": cases}, f"{target}: {said}")


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
