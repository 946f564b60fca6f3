"""The command line: one command per step, the same functions that DVC and Kubeflow call."""

import io
import json
import os
import signal
import sys
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Annotated, cast

import typer

from condswin import layout
from condswin.config.names import TASKS, TaskName
from condswin.config.profiles import compose, profile_names, read_profile, use
from condswin.config.reading import load_config, read_yaml
from condswin.config.root import Config
from condswin.config.search import load_search, shared_database
from condswin.config.study import load_study
from condswin.errors import BadDataError, CondswinError, ConfigError
from condswin.outputs import check_file, check_output
from condswin.plain import plain
from condswin.suggest import unknown

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Conditional Swin U-Nets: retrain, evaluate and promote MRI reconstruction and CT segmentation networks.",
)
params_app = typer.Typer(no_args_is_help=True, help="Choose, check and show parameters.")
app.add_typer(params_app, name="params")


def _part(name: str) -> str:
    return name if name == "report" else _task(name)


def _task(name: str) -> str:
    if name not in TASKS:
        raise typer.BadParameter(unknown("task", name, TASKS))
    return name


Params = Annotated[Path, typer.Option("--params", help="Parameters file.", show_default=True)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Instead of the file's value; may be repeated: seed=3."),
]
Task = Annotated[str, typer.Argument(callback=_task, help=" or ".join(TASKS))]
Variant = Annotated[str, typer.Argument(help="A variant named in the parameters.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write beside files that are not condswin's; replace those of equal names.")
]
OptionalPath = Annotated[Path | None, typer.Option(help="Default: the place in dvc.yaml.")]
DEFAULT_PARAMS = Path("params.yaml")


def main() -> None:
    """Runs the command line; an error that a user can put right is one message and an exit status."""
    # Python would leave half-written files behind, and as a container's first process not end at all.
    signal.signal(signal.SIGTERM, _terminate)
    # MLflow's notices on telemetry would stand between a command's own lines.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # So would PyTorch's at each start and stop of its profiler, which `bench` counts memory with.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    # And advice on parameters that have a gradient in each step after all, from each process that trains.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files that are not UTF-8 are shown by their bytes.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except CondswinError as error:
        # Messages have lines; what files and parameters bring into them is shown letter by letter.
        print("\n".join(map(plain, f"error: {error}".split("\n"))), file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.exit(0)


def _terminate(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _read(task: str, params: Path, settings: list[str] | None) -> Config:
    """The parameters, which must have the task: called before a step's slow imports."""
    config = load_config(params, settings or [])
    config.task(task)
    return config


def _combinations(task: str, knobs: list[str]) -> dict[str, list[str]]:
    """Settings of each combination of the knobs' values, by how it is called."""
    choices = []
    for knob in knobs:
        name, _, values = knob.partition("=")
        if not name or not all(values.split(",")):
            raise ConfigError(f"--knob {knob}: give a setting of {task}.train and its values, as workers=0,1")
        choices.append([f"{name}={value}" for value in values.split(",")])
    return {", ".join(chosen): [f"{task}.train.{each}" for each in chosen] for chosen in product(*choices)}


def _read_or_demo(task: TaskName | None, params: Path, settings: list[str] | None) -> Config:
    """The parameters, or the demo's for what needs none of its own: scoring and predicting anybody's files."""
    config = load_config(params, settings or []) if params.exists() else compose(["demo"], settings or [])
    if task is not None and task not in config.present:
        return compose(["demo"])
    return config


@params_app.command("use")
def params_use(
    profiles: Annotated[list[str], typer.Argument(help="Profiles; later ones win over earlier ones.")],
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace edited values too.")] = False,
) -> None:
    """Write the parameters of one or more profiles; a source that you set stays.

    Example: condswin params use fastmri cluster --set reconstruction.source=/data/fastmri
    """
    kept = use(profiles, params, settings=settings or [], overwrite=overwrite)
    print(f"{params}: {' + '.join(profiles)}" + "".join(f", {key} as before" for key in kept))


@params_app.command("list")
def params_list() -> None:
    """List the ready profiles and what they are for."""
    width = max(map(len, profile_names()))
    for name in profile_names():
        print(f"{name:{width}}  {read_profile(name).about}")


@params_app.command("show")
def params_show(params: Params = DEFAULT_PARAMS, settings: Settings = None) -> None:
    """Check the parameters and print them, defaults included, as JSON."""
    print(json.dumps(load_config(params, settings or []).values(), indent=2))


@params_app.command("tasks")
def params_tasks(
    task: Annotated[str, typer.Argument(callback=lambda name: name and _task(name), help="Only this one.")] = "",
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Check the parameters, as DVC needs them, and print their tasks; an error if the one asked for is not there."""
    config = load_config(params, settings or [])
    if "tasks" not in read_yaml(params):
        raise ConfigError(f"{params}: tasks: missing; dvc.yaml needs it, write `tasks: {json.dumps(config.stages)}`")
    print(" ".join([config.task(task).name] if task else config.present))


@params_app.command("reference")
def params_reference() -> None:
    """Print a page on every parameter, as `docs/parameters.md`."""
    from condswin.config.reference import reference

    print(reference(), end="")


@app.command("demo-data")
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
    config = _read(task, params, settings)
    target = out or layout.demo(task)
    check_output(target, step="demo-data", inputs=[], overwrite=overwrite)
    from condswin.steps.demo_data import demo_data as step

    count = step(config, task, out=target, overwrite=overwrite)
    print(f"{target}: {count} cases")


@app.command()
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
    config = _read(task, params, settings)
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


@app.command()
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
    config = _read(task, params, settings)
    target, ingested = out or layout.prepared(task), data or layout.ingested(task)
    check_output(target, step="prepare", inputs=[ingested], overwrite=overwrite)
    from condswin.steps.prepare import prepare as step

    manifest = step(config, task, ingested=ingested, out=target, shard=(int(part), int(parts)), overwrite=overwrite)
    print(f"{target}: {'other shards are not done yet' if manifest is None else f'{len(manifest.cases)} cases'}")


@app.command()
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


@app.command("prepare-ct")
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


Prepared = Annotated[Path | None, typer.Option(help="Output of prepare. Default: the place in dvc.yaml.")]


@app.command()
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
    config = _read(task, params, settings)
    config.task(task).variant(variant)
    target, data = out or layout.model(task, variant), prepared or layout.prepared(task)
    check_output(target, step="train", inputs=[data], overwrite=overwrite)
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
        print(f"{target}: {'trained before, nothing to do' if trained.done_before else 'trained'}")


@app.command()
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
    config = _read(task, params, settings)
    config.task(task).variant(variant)
    target, data = out or layout.pretrained(task, variant), prepared or layout.prepared(task)
    check_output(target, step="pretrain", inputs=[data], overwrite=overwrite)
    from condswin.steps.train import pretrain as step

    places = {"prepared": data, "checkpoints": checkpoints or layout.pretraining(task, variant), "out": target}
    trained = step(config, task, variant, **places, overwrite=overwrite)
    if trained.written:
        print(f"{target}: {'trained before, nothing to do' if trained.done_before else 'trained'}")
        print(f"start from it: condswin train {task} {variant} --set {task}.train.initial={target}")


@app.command()
def evaluate(
    task: Task,
    variant: Annotated[str | None, typer.Argument(help="Evaluate this trained variant.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder. Default: of the variant.")] = None,
    prepared: Prepared = None,
    targets: Annotated[Path | None, typer.Option(help="Instead of a model: folder of targets ...")] = None,
    predictions: Annotated[Path | None, typer.Option(help="... and folder of predictions of the same names.")] = None,
    out: OptionalPath = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Score a trained variant, or any folder of predictions.

    Examples:

    condswin evaluate reconstruction swin

    condswin evaluate segmentation --targets labels/ --predictions mine/ --out scores/
    """
    if (targets is None) != (predictions is None):
        raise typer.BadParameter("give --targets and --predictions together")
    if targets is not None and predictions is not None:
        if out is not None:
            check_output(out, step="score", inputs=[targets, predictions], overwrite=overwrite)
        from condswin.reporting.text import print_summary
        from condswin.steps.score import score_folders

        config = _read_or_demo(task, params, settings)
        scores = score_folders(config, task, targets=targets, predictions=predictions, out=out, overwrite=overwrite)
        print_summary(scores)
        return
    if variant is None and model is None:
        raise typer.BadParameter("give a variant, --model, or --targets with --predictions")
    config = _read(task, params, settings)
    if model is None:
        config.task(task).variant(cast(str, variant))
    folder = model or layout.model(task, cast(str, variant))
    target = out or (layout.evaluation(task, variant) if variant else Path("evaluation", task, folder.name))
    data = prepared or layout.prepared(task)
    check_output(target, step="evaluate", inputs=[folder, data], overwrite=overwrite)
    from condswin.reporting.text import print_summary
    from condswin.steps.evaluate import evaluate as step

    result = step(config, task, model=folder, prepared=data, out=target, overwrite=overwrite)
    print_summary(result["test"])


@app.command()
def compare(
    task: Task,
    evaluations: Annotated[Path | None, typer.Option(help="Folder with one evaluation per variant.")] = None,
    out: OptionalPath = None,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Set the evaluated variants beside each other and choose the best on validation cases.

    Example: condswin compare segmentation
    """
    config = _read(task, params, settings)
    target = out or layout.comparison(task)
    check_file(target)
    from condswin.evaluation.results import METRICS
    from condswin.files import read_json
    from condswin.steps.compare import compare as step

    results = {
        variant: read_json((evaluations / variant if evaluations else layout.evaluation(task, variant)) / METRICS)
        for variant in config.task(task).variants
    }
    result = step(config, task, results=results, out=target)
    print(f"{target}: best on {result['chosen_on']} by {result['metric']} is {result['best']}")


@app.command()
def register(
    task: Task,
    comparison: OptionalPath = None,
    model: Annotated[Path | None, typer.Option(help="Model folder. Default: of the best variant.")] = None,
    out: OptionalPath = None,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Register the best variant in MLflow as a version with the alias "challenger"; running it again changes nothing.

    Example: condswin register reconstruction
    """
    config = _read(task, params, settings)
    target = out or layout.registered(task)
    check_file(target)
    from condswin.files import read_json
    from condswin.steps.register import Evidence
    from condswin.steps.register import register as step

    compared = comparison or layout.comparison(task)
    places = (layout.evaluations(task), layout.prepared(task), layout.ingested(task), layout.card(task))
    record = step(
        config,
        task,
        comparison=compared,
        model=model or layout.model(task, read_json(compared)["best"]),
        out=target,
        evidence=Evidence(*places),
    )
    known = ""
    if record["already_registered"]:
        known = ", registered already, challenger again" if record["moved"] else ", registered already: nothing to do"
    print(f"{record['name']} version {record['version']}{known}")


@app.command()
def promote(
    task: Task,
    registered: OptionalPath = None,
    prepared: Prepared = None,
    out: OptionalPath = None,
    hold: Annotated[bool, typer.Option("--hold", help="Leave one that passes for `condswin approve`.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with status 4 if it is refused, 5 if undecided, 6 if held.")
    ] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Make the challenger champion if it loads cleanly and passes the gate against today's champion.

    The answer is promoted, refused, or undecided: too few patients, or an interval on both sides of what is needed.

    Example: condswin promote reconstruction
    """
    config = _read(task, params, settings)
    target = out or layout.promoted(task)
    check_file(target)
    from condswin.reporting.decision import decision_lines, headline
    from condswin.steps.promote import promote as step

    champion, known, record = step(
        config,
        task,
        registered=registered or layout.registered(task),
        prepared=prepared or layout.prepared(task),
        out=target,
        baseline=layout.evaluation(task, config.task(task).reference_method),
        hold=hold,
    )
    if known and champion:
        print(f"{target}: nothing to do, version {record['version']} is champion already")
    else:
        print(f"{target}: {'nothing to do, decided already: ' if known else ''}{headline(record)}")
    for line in decision_lines(record):
        print(plain(line))
    if exit_code and not champion:
        sys.exit({"refused": 4, "undecided": 5, "held": 6}[record["outcome"]])


@app.command()
def rollback(task: Task, params: Params = DEFAULT_PARAMS, settings: Settings = None) -> None:
    """Make the previous champion champion again.

    Example: condswin rollback reconstruction
    """
    config = _read(task, params, settings)
    from condswin.steps.promote import rollback as step

    print(f"champion is version {step(config, task)} again")


By = Annotated[str, typer.Option(help="Who decides.")]
Why = Annotated[str, typer.Option(help="The reason, which is kept.")]
Version = Annotated[int, typer.Argument(min=1, help="Of the registered model.")]


@app.command()
def approve(
    task: Task, version: Version, by: By, why: Why, params: Params = DEFAULT_PARAMS, settings: Settings = None
) -> None:
    """Make a challenger champion that passed the gate and was held.

    Example: condswin approve reconstruction 3 --by "J. Doe" --why "read twenty cases"
    """
    config = _read(task, params, settings)
    from condswin.steps.approve import approve as step

    step(config, task, str(version), by=by, why=why)
    print(f"champion is version {version}")


@app.command()
def reject(
    task: Task, version: Version, by: By, why: Why, params: Params = DEFAULT_PARAMS, settings: Settings = None
) -> None:
    """Keep a version from becoming champion.

    Example: condswin reject reconstruction 3 --by "J. Doe" --why "smooths over small tears"
    """
    config = _read(task, params, settings)
    from condswin.steps.approve import reject as step

    step(config, task, str(version), by=by, why=why)
    print(f"version {version} is rejected")


@app.command()
def freeze(
    task: Task,
    by: By,
    why: Why,
    lift: Annotated[bool, typer.Option("--lift", help="Allow moves again.")] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Stop every move of the champion: promotion, approval, roll-back.

    Example: condswin freeze reconstruction --by "J. Doe" --why "audit until Friday"
    """
    config = _read(task, params, settings)
    from condswin.steps.approve import freeze as step

    step(config, task, by=by, why=why, lift=lift)
    print(f"the champion {'moves again' if lift else 'is frozen'}")


@app.command()
def history(
    task: Task,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON per event, and nothing else.")] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Print what happened to the registered versions of a task: decisions, by whom, and why.

    Example: condswin history reconstruction
    """
    config = _read(task, params, settings)
    from condswin.reporting.text import print_history
    from condswin.steps.approve import history as step

    events = step(config, task)
    if as_json:
        print("\n".join(json.dumps(event, sort_keys=True) for event in events))
    else:
        print_history(events)


Registered = Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION.")]


@app.command()
def lineage(
    model: Registered,
    check: Annotated[bool, typer.Option("--check", help="Verify each step; status 1 if one does not hold.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON per step, and nothing else.")] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Print what a registered version was made of: package, decision, training, code, parameters, data.

    Example: condswin lineage models:/condswin-reconstruction@champion --check
    """
    config = _read_or_demo(None, params, settings)
    from condswin.reporting.text import print_lineage
    from condswin.steps.lineage import lineage as step
    from condswin.steps.lineage import require_whole

    links = step(config, model, prepared=layout.prepared, check=check)
    if as_json:
        print("\n".join(json.dumps(link.record(), sort_keys=True) for link in links))
    else:
        print_lineage([link.record() | {"text": link.text} for link in links])
    require_whole(links)


@app.command()
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
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON per input, and nothing else.")] = False,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Reconstruct k-space files or segment CT volumes, with or without targets.

    Of a folder, all files of the model's kind are predicted, those below it too.

    Example: condswin predict --model models:/condswin-reconstruction@champion scans/ --out reconstructions/
    """
    config = _read_or_demo(None, params, settings)
    if missing := [str(path) for path in inputs if not (path.is_file() or path.is_dir())]:
        raise BadDataError(f"{', '.join(missing)}: no such file")
    check_output(out, step="predict", inputs=inputs, overwrite=overwrite)
    from condswin.steps.predict import Result
    from condswin.steps.predict import predict as step

    def tell(result: Result, address: str) -> None:
        if as_json:
            print(json.dumps(result.record(address)), flush=True)
            return
        for warning in result.warnings:
            print(plain(f"{result.input}: {warning}"), file=sys.stderr)
        for path in result.outputs:
            print(plain(path), flush=True)

    forms = [form for form, wanted in (("png", png), ("nifti", nifti)) if wanted]
    step(config, inputs, model=models[0], further=models[1:], out=out, forms=forms, force=force, overwrite=overwrite,
         tell=tell, note=lambda text: print(plain(text), file=sys.stderr))  # fmt: skip


@app.command()
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
    config = _read_or_demo(None, params, settings)
    from condswin.steps.serve import serve as step

    if mlserver is not None and not mlserver.is_file():
        raise BadDataError(
            f"{mlserver}: no such file; pip install mlserver mlserver-mlflow 'uvloop<0.22' puts it there"
        )

    def tell(exact: str, url: str) -> None:
        print(f"{exact}: {url}", flush=True)

    step(config, model, host=host, port=port, mlserver=mlserver, tell=tell)


@app.command("serve-manifest")
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
    config = _read_or_demo(None, params, settings)
    from condswin.steps.serve_manifest import Runtime, manifest, require_current, write_manifest

    if check is not None:
        print(f"{check}: pins {require_current(config, check)}, which is right")
        return
    made = manifest(config, model, runtime=cast(Runtime, runtime), artifacts=artifacts, name=name)
    if out is None:
        print(json.dumps(made, indent=2))
    else:
        write_manifest(out, made, overwrite=overwrite)
        print(out)


@app.command()
def shadow(
    task: Task,
    inputs: Annotated[list[Path], typer.Argument(help="Files as they come from the scanner, or folders of them.")],
    champion: Annotated[str, typer.Option(help="Default: the alias of that name.")] = "",
    challenger: Annotated[str, typer.Option(help="Default: the alias of that name.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON per file and one for all.")] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Let challenger and champion predict unlabelled files: how far they disagree, and which files are unlike training.

    Example: condswin shadow reconstruction scans/
    """
    config = _read_or_demo(task, params, settings)
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
        tell=lambda case: print(
            json.dumps(case.record()) if as_json else plain(shadow_line(case.record())), flush=True
        ),
    )
    record = found.record()
    if as_json:
        print(json.dumps(record, sort_keys=True))
        return
    for role, count in record["unlike_training_data"].items():
        print(f"{role} {record[role]}: {count} of {record['files']} files are unlike what it was trained on")
    print(shadow_line({"input": f"mean of {record['compared']}", **record["mean"]}))


@app.command()
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
    config = _read(task, params, settings)
    networks = load_study(study, task)
    data, others = prepared or layout.prepared(task), [folder.resolve() for folder in also or []]
    check_output(out / task, step="ablate", inputs=[data, *others], overwrite=overwrite)
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
    print(table)


@app.command()
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
    as_json: Annotated[bool, typer.Option("--json", help="The trials as JSON, and nothing else.")] = False,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Search for parameters with which a variant trains best on validation cases; a search that was stopped goes on.

    Examples:

    condswin tune reconstruction swin --trials 20

    condswin tune segmentation conditional-light --search space.yaml --seeds 3 --set segmentation.train.epochs=10
    """
    config = _read(task, params, settings)
    config.task(task).variant(variant)
    wanted = load_search(search, config, task, variant)
    target, data = out or layout.search(task, variant), prepared or layout.prepared(task)
    database = shared_database(storage)
    check_output(target, step="tune", inputs=[data], overwrite=overwrite)
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
    if as_json:
        print(json.dumps(results, indent=2))
        return
    if not results["trained"]:
        print(f"{target}: {trials} trials done before, nothing to do")
    print_trials(results)


@app.command()
def report(
    out: OptionalPath = None, overwrite: Overwrite = False, params: Params = DEFAULT_PARAMS, settings: Settings = None
) -> None:
    """Write the HTML report of the last pipeline run.

    Example: condswin report
    """
    config, target = load_config(params, settings or []), out or layout.report()
    check_file(target, overwrite=overwrite)
    from condswin.registry.linked import send_report
    from condswin.steps.report import report as step

    def publish(task: str, page: Path) -> None:
        send_report(config, layout.registered(task), page)

    print(step(config, out=target, overwrite=overwrite, publish=publish))


@app.command()
def summary(params: Params = DEFAULT_PARAMS, settings: Settings = None) -> None:
    """Print the variants x metrics table of the last pipeline run and where to look further.

    Example: condswin summary
    """
    config = load_config(params, settings or [])
    from condswin.reporting.text import print_tables
    from condswin.steps.report import read_comparisons

    print_tables(config, read_comparisons(config))


@app.command()
def bench(
    variants: Annotated[list[str] | None, typer.Argument(help="Networks; default: all.")] = None,
    preset: Annotated[str, typer.Option(help="Size of the networks.")] = "thesis-2",
    size: Annotated[int, typer.Option(min=8, help="Height and width of the image, pixels.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: PyTorch's.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements in turns, whose medians are given.")] = 7,
    compile: Annotated[bool, typer.Option("--compile", help="Measure torch.compile too; takes minutes.")] = False,
    out: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file.")] = None,
    train: Annotated[
        str | None,
        typer.Option(
            callback=lambda name: name and _task(name),
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

    condswin bench swin conditional-light --preset thesis-2 --size 256 --batch 2 --json costs.json

    condswin bench swin --train reconstruction --knob processes=1,2 --knob activation_checkpointing=false,true
    """
    if out is not None:
        check_file(out)
    if train is not None:
        if slices:
            if knobs or not card_tflops:
                raise ConfigError("bench: --slices computes hours on a card; give its --card-tflops, and no --knob")
            from condswin.steps.bench_hours import bench_hours
            from condswin.training.feeding import Card

            config, seen = _read(train, params, settings), (size, columns or size)
            bench_hours(config, train, variants or [], slices=slices, size=seen, card=Card(card_tflops, utilisation),
                        out=out)  # fmt: skip
            return
        if columns:
            raise ConfigError("bench: --columns is the width of a slice of --slices; leave it out")
        chosen = _combinations(train, knobs or [])
        configs = {said: _read(train, params, [*(settings or []), *more]) for said, more in chosen.items()}
        data = prepared or layout.prepared(train)
        from condswin.steps.bench_training import bench_training
        from condswin.training.feeding import Card

        card = Card(card_tflops, utilisation) if card_tflops else None
        bench_training(configs, train, variants or [], prepared=data, batches=rounds, out=out, card=card)
        return
    if knobs or card_tflops or slices or columns:
        raise ConfigError("bench: --knob, --card-tflops and --slices are about a training; name its task with --train")
    from condswin.steps.bench import bench as step

    step(variants, preset=preset, size=size, batch=batch, device=device, threads=threads, rounds=rounds,
         compile_too=compile, out=out)  # fmt: skip


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Model folder, as train writes it.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    format: Annotated[str, typer.Option(help="pt2 (torch.export) or onnx.")] = "pt2",
    size: Annotated[
        int, typer.Option(min=8, help="Height and width of its images, pixels; the batch stays free.")
    ] = 256,
    overwrite: Overwrite = False,
) -> None:
    """Write a trained network as a program of PyTorch or ONNX, checked against the network itself.

    Example: condswin export models/reconstruction/swin --format pt2 --out swin.pt2 --size 320
    """
    check_file(out, overwrite=overwrite)
    from condswin.steps.export import export_model

    error = export_model(model, out, kind=format, size=size, overwrite=overwrite)
    print(f"{out}: differs from the network by at most {error:.1e}")


@app.command()
def baseline(
    task: Task,
    prepared: Prepared = None,
    out: OptionalPath = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Predict by the reference method, tuned on validation cases, and score it like a network.

    Compressed sensing (total variation) for reconstruction; thresholds and an active contour for segmentation.

    Example: condswin baseline reconstruction
    """
    from condswin.tasks.facts import Facts
    from condswin.tasks.loading import load

    config = _read(task, params, settings)
    target = out or layout.evaluation(task, load(Facts, task, config).reference_method or "baseline")
    data = prepared or layout.prepared(task)
    check_output(target, step="baseline", inputs=[data], overwrite=overwrite)
    from condswin.reporting.text import print_summary
    from condswin.steps.baseline import baseline as step

    result = step(config, task, prepared=data, out=target, overwrite=overwrite)
    print(f"chosen on validation cases: {json.dumps(result['settings'])}")
    print_summary(result["test"])


@app.command()
def code(
    what: Annotated[str, typer.Argument(callback=_part, help="A task, or `report` for what is on all tasks.")],
    out: OptionalPath = None,
) -> None:
    """Write, for each step of a task, the checksums of the code that its result depends on.

    DVC's stages depend on these files. Example: condswin code reconstruction
    """
    target = out or Path("code", what)
    check_output(target, step="code", inputs=[])
    from condswin.steps.code import code as step

    for path in step(what, out=target):
        print(path)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per finding.")] = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Look at what a run needs, here and on its servers, and say what to do; status 1 if anything would fail.

    Example: condswin doctor
    """
    from dataclasses import asdict

    from condswin.doctor.examine import examine

    failed = False
    for finding in examine(params, settings or []):
        failed |= finding.state == "failed"
        mend = f"; {finding.mend}" if finding.mend else ""
        line = f"{finding.state:8}  {finding.name}: {finding.said}{mend}"
        print(json.dumps(asdict(finding)) if as_json else plain(line), flush=True)
    if failed:
        sys.exit(1)


@app.command("data-card")
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
    config = _read("reconstruction", params, settings)
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


@app.command()
def gallery(
    inputs: Annotated[list[Path], typer.Argument(help="fastMRI files, undersampled or not, with or without target.")],
    out: Annotated[Path, typer.Option(help="Folder for the table and the pictures.")],
    model: Annotated[list[str] | None, typer.Option(help="A network to add; may be given several times.")] = None,
    weight: Annotated[
        float | None, typer.Option(help="Of the total variation. Default: what condswin baseline chose.")
    ] = None,
    overwrite: Overwrite = False,
    params: Params = DEFAULT_PARAMS,
    settings: Settings = None,
) -> None:
    """Reconstruct files by zero filling, compressed sensing and any networks: a table and pictures.

    Example: condswin gallery scans/*.h5 --model models/reconstruction/swin --out pictures/
    """
    config = _read_or_demo("reconstruction", params, settings)
    check_output(out, step="gallery", inputs=inputs, overwrite=overwrite)
    from condswin.steps.gallery import gallery as step

    for path in step(config, inputs, models=model or [], weight=weight, out=out, overwrite=overwrite):
        print(plain(path))
