"""Commands: networks, and what they cost."""

from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from condswin import layout
from condswin.cli.manners import answer, commands
from condswin.cli.options import (
    DEFAULT_PARAMS,
    OptionalPath,
    Overwrite,
    Params,
    Prepared,
    Settings,
    Task,
    Variant,
    known_task,
    read,
    require,
)
from condswin.config.search import load_search, shared_database
from condswin.config.study import load_study
from condswin.files import MANIFEST
from condswin.outputs import check_file, check_output

app = typer.Typer()
command = commands(app, "Training")


@command()
def train(
    task: Task,
    variant: Variant,
    prepared: Prepared = None,
    checkpoints: OptionalPath = None,
    out: OptionalPath = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Train one variant; an interrupted training goes on from its last checkpoint, a finished one is kept.

    Example: condswin train reconstruction conditional-light
    """
    config = read(task, params, settings)
    config.task(task).variant(variant)
    target, data = out or layout.model(task, variant), prepared or layout.prepared(task)
    check_output(target, step="train", inputs=[data], overwrite=overwrite)
    require(data / MANIFEST)
    from condswin.reporting.training import drawing
    from condswin.steps.train import train as step

    trained = step(
        config,
        task,
        variant,
        prepared=data,
        checkpoints=checkpoints or layout.checkpoints(task, variant),
        out=target,
        overwrite=overwrite,
        draw=drawing(config, task),
    )
    if trained.written:
        answer({"out": target, "done_before": trained.done_before}, _trained(target, trained.done_before))


@command()
def pretrain(
    task: Task,
    variant: Variant,
    prepared: Prepared = None,
    checkpoints: OptionalPath = None,
    out: OptionalPath = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Train one variant without labels, for a training that starts from it (`train.initial`); goes on as `train` does.

    Example: condswin pretrain segmentation swin
    """
    config = read(task, params, settings)
    config.task(task).variant(variant)
    target, data = out or layout.pretrained(task, variant), prepared or layout.prepared(task)
    check_output(target, step="pretrain", inputs=[data], overwrite=overwrite)
    require(data / MANIFEST)
    from condswin.steps.train import pretrain as step

    places = {"prepared": data, "checkpoints": checkpoints or layout.pretraining(task, variant), "out": target}
    trained = step(config, task, variant, **places, overwrite=overwrite)
    if trained.written:
        next_step = f"condswin train {task} {variant} --set {task}.train.initial={target}"
        said = f"{_trained(target, trained.done_before)}\nstart from it: {next_step}"
        answer({"out": target, "done_before": trained.done_before, "next": next_step}, said)


def _trained(target: Path, before: bool) -> str:
    return f"{target}: {'trained before, nothing to do' if before else 'trained'}"


@command()
def tune(
    task: Task,
    variant: Variant,
    search: Annotated[
        str, typer.Option(help="A ready search (an unknown name lists them), or a YAML file.")
    ] = "learning",
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those done before among them.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per trial, whose mean counts.")] = 1,
    storage: Annotated[
        str,
        typer.Option(
            envvar="CONDSWIN_STORAGE",
            help="postgresql://USER:PASSWORD@HOST/DATABASE that several processes share; default: a file in --out.",
        ),
    ] = "",
    here: Annotated[
        int | None, typer.Option(min=1, help="Trials that this process makes at most; default: all that are left.")
    ] = None,
    prepared: Prepared = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for trials; what is there is kept. Default: tune/TASK/VARIANT.")
    ] = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Search for parameters with which a variant trains best on validation cases; a search that was stopped goes on.

    Examples:

    condswin tune reconstruction swin --trials 20

    condswin tune segmentation conditional-light --search space.yaml --seeds 3 --set segmentation.train.epochs=10
    """
    config = read(task, params, settings)
    config.task(task).variant(variant)
    wanted = load_search(search, config, task, variant)
    target, data = out or layout.search(task, variant), prepared or layout.prepared(task)
    database = shared_database(storage)
    check_output(target, step="tune", inputs=[data], overwrite=overwrite)
    require(data / MANIFEST)
    from condswin.reporting.text import print_trials
    from condswin.steps.train import train as training
    from condswin.steps.tune import tune as step

    results = step(
        config,
        task,
        variant,
        wanted,
        train=training,
        trials=trials,
        seeds=seeds,
        prepared=data,
        out=target,
        storage=database,
        here=here,
        overwrite=overwrite,
    )

    def show() -> None:
        if not results["trained"]:
            print(f"{target}: {trials} trials done before, nothing to do")
        print_trials(results)

    answer({"out": target, **results}, show)


@command()
def ablate(
    task: Task,
    study: Annotated[str, typer.Option(help="A ready study (an unknown name lists them), or a YAML file.")] = "routing",
    also: Annotated[
        list[Path] | None, typer.Option(help="Folder of raw files to test on too; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per network.")] = 3,
    latency: Annotated[
        int, typer.Option(min=0, help="Measurements per network of the time a slice takes; 0 for no column.")
    ] = 0,
    prepared: Prepared = None,
    out: Annotated[Path, typer.Option(help="Folder for results; what is there is kept.")] = Path("ablation"),
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Train networks that differ in one thing under several seeds; print the table of their scores.

    Example: condswin ablate reconstruction --seeds 3 --also ../shared/data/mri
    """
    config = read(task, params, settings)
    networks = load_study(study, task)
    data, others = prepared or layout.prepared(task), [folder.resolve() for folder in also or []]
    check_output(out / task, step="ablate", inputs=[data, *others], overwrite=overwrite)
    require(data / MANIFEST, *others)
    from condswin.files import read_json
    from condswin.steps.ablate import RESULTS
    from condswin.steps.ablate import ablate as step

    table = step(
        config,
        task,
        networks,
        prepared=data,
        also=others,
        seeds=seeds,
        latency=latency,
        out=out / task,
        overwrite=overwrite,
    )
    answer({"out": out / task, **read_json(out / task / RESULTS)}, table)


@command()
def bench(
    variants: Annotated[list[str] | None, typer.Argument(help="Networks; default: all.")] = None,
    preset: Annotated[str, typer.Option(help="Size of the networks.")] = "thesis-2",
    size: Annotated[int, typer.Option(min=8, help="Height and width of the image, pixels.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: PyTorch's.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements in turns, whose medians are given.")] = 7,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--override",
            metavar="SETTING=VALUE",
            help="A setting of the networks other than the preset's, as light_attention=0.5; may be repeated.",
        ),
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Measure torch.compile too; takes minutes.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file for the numbers too.")] = None,
    train: Annotated[
        str | None,
        typer.Option(
            callback=lambda name: name and known_task(name),
            help="Instead: where the time of a training of this task goes, by batch, with what the parameters say.",
        ),
    ] = None,
    knobs: Annotated[
        list[str] | None,
        typer.Option(
            "--knob",
            help="With --train: a setting of `train` and values, as precision=32-true,bf16-mixed, to measure in turns; "
            "of several, all combinations.",
        ),
    ] = None,
    card_tflops: Annotated[
        float | None,
        typer.Option(min=0.001, help="With --train: what a card of this peak would take, and what loaders give."),
    ] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the peak that a training is assumed to reach.")
    ] = 0.3,
    slices: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --train and --card-tflops: nothing is measured; hours by arithmetic, of so many "
            "training slices of --size an epoch.",
        ),
    ] = None,
    columns: Annotated[
        int | None, typer.Option(min=8, help="With --slices: width that the network sees, k-space's; default: --size.")
    ] = None,
    prepared: Prepared = None,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Print what networks cost: parameters, FLOPs by branch, latency, training speed, peak memory.

    Examples:

    condswin bench swin conditional-light --preset thesis-2 --size 256 --batch 2 --out costs.json

    condswin bench swin --train reconstruction --knob processes=1,2 --knob activation_checkpointing=false,true
    """
    if out is not None:
        check_file(out)
    tables: list[Any] = []
    if train is not None:
        if overrides:
            raise typer.BadParameter("--override is about networks without a training; with --train, use --set")
        if slices:
            if knobs or not card_tflops:
                raise typer.BadParameter("--slices computes hours on a card; give its --card-tflops, and no --knob")
            from condswin.reporting.text import print_wide
            from condswin.steps.bench_hours import bench_hours
            from condswin.training.feeding import Card

            config, seen = read(train, params, settings), (size, columns or size)
            hours = bench_hours(config, train, variants or [], slices=slices, size=seen,
                                card=Card(card_tflops, utilisation), out=out, show=tables.append)  # fmt: skip
            answer({label: each._asdict() for label, each in hours.items()}, lambda: print_wide(tables))
            return
        if columns:
            raise typer.BadParameter("--columns is the width of a slice of --slices; leave it out")
        chosen = _combinations(train, knobs or [])
        configs = {said: read(train, params, [*(settings or []), *more]) for said, more in chosen.items()}
        data = prepared or layout.prepared(train)
        require(data / MANIFEST)
        from condswin.reporting.text import print_wide
        from condswin.steps.bench_training import bench_training
        from condswin.training.feeding import Card

        card = Card(card_tflops, utilisation) if card_tflops else None
        phases, fed = bench_training(configs, train, variants or [], prepared=data, batches=rounds, out=out, card=card,
                                     show=tables.append)  # fmt: skip
        feeds = {label: {"feeding": each._asdict()} for label, each in fed.items()}
        record = {label: {**each._asdict(), **feeds.get(label, {})} for label, each in phases.items()}
        answer(record, lambda: print_wide(tables))
        return
    if knobs or card_tflops or slices or columns:
        raise typer.BadParameter("--knob, --card-tflops and --slices are about a training; name its task with --train")
    from condswin.config.reading import replaced
    from condswin.reporting.text import print_wide
    from condswin.steps.bench import bench as step

    changed = replaced({}, overrides or [], option="--override")
    costs = step(variants, preset=preset, size=size, batch=batch, device=device, threads=threads, rounds=rounds,
                 overrides=changed, compile_too=compile, out=out, show=tables.append)  # fmt: skip
    answer({name: asdict(cost) for name, cost in costs.items()}, lambda: print_wide(tables))


def _combinations(task: str, knobs: list[str]) -> dict[str, list[str]]:
    """Settings of each combination of the knobs' values, by how it is called."""
    choices = []
    for knob in knobs:
        name, _, values = knob.partition("=")
        if not name or not all(values.split(",")):
            raise typer.BadParameter(f"--knob {knob}: give a setting of {task}.train and its values, as workers=0,1")
        choices.append([f"{name}={value}" for value in values.split(",")])
    return {", ".join(chosen): [f"{task}.train.{each}" for each in chosen] for chosen in product(*choices)}
