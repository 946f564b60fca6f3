"""Steps: train one variant on prepared data, and before that, if wanted, without labels."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
from torch import Tensor

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.config.train import TrainConfig
from condswin.devices import described
from condswin.files import fingerprint
from condswin.layout import HISTORY
from condswin.manifest import GENERATED, SYNTHETIC, TRAINED_ON, Manifest, generated_of_all
from condswin.networks.saving import (
    DESCRIPTION,
    PRETRAINING,
    WEIGHTS,
    ModelSpec,
    load_weights,
    read_spec,
    save_model,
)
from condswin.networks.transfer import Transfer, transfer
from condswin.outputs import open_output
from condswin.progress import say
from condswin.provenance import git_state, libraries
from condswin.registry.training_run import send_rest, training_run
from condswin.tasks.facts import Facts
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.training import decisive, fit, steps_of
from condswin.training.checkpoints import training_folder
from condswin.training.history import Rows, read_history, write_history
from condswin.training.ownership import owned
from condswin.training.ranks import first, joined, place
from condswin.training.shown import Draw
from condswin.training.stalling import require_validation
from condswin.validity import make_key

#: Files of a model folder.
OUTPUTS = (WEIGHTS, DESCRIPTION, HISTORY)


class Trained(NamedTuple):
    """What training ended with.

    Attributes:
        spec: Of the network.
        done_before: The folder held this very result already; nothing was trained.
        written: This process wrote it: of several that torchrun started, one does.
        history: Losses and scores by epoch; in the process that wrote.
    """

    spec: ModelSpec
    done_before: bool
    written: bool
    history: Rows


class _Training(NamedTuple):
    """What is trained how.

    Attributes:
        step: `train` or `pretrain`.
        learning: Slices, loss and scores.
        train: Optimisation.
        monitor: Score that picks the best epoch, and whether a higher one is better.
        more: Parameters beside those that every training has.
    """

    step: str
    learning: Learning
    train: TrainConfig
    monitor: tuple[str, bool]
    more: Mapping[str, Any]


class _Initial(NamedTuple):
    """The network that a training starts from: where it is, its weights, its description."""

    folder: Path
    weights: Mapping[str, Tensor]
    spec: ModelSpec


@joined()
def train(
    config: Config,
    task_name: TaskName,
    variant: str,
    *,
    prepared: Path,
    checkpoints: Path,
    out: Path,
    overwrite: bool = False,
    tags: Mapping[str, str] | None = None,
    watch: Callable[[Rows], None] = lambda _: None,
    draw: Draw | None = None,
) -> Trained:
    """Trains a variant and writes the best epoch's weights.

    Args:
        config: Parameters.
        task_name: Which task.
        variant: A key of the task's `variants`.
        prepared: Output of the prepare step.
        checkpoints: Folder that survives interruptions, with a folder for each training: one that was interrupted goes
            on from its last checkpoint, one of which anything changed starts anew.
        out: Model folder: `model.safetensors`, `model.json`, `history.csv`. A whole model of the same data, parameters
            and code is kept.
        overwrite: Write into a folder that holds other files too.
        tags: Of the MLflow run, beside those that every training has.
        watch: Called at the end of each epoch with the history so far, once that is kept; what it raises ends the
            training.
        draw: Draws pictures after each epoch, which the training's run gets; see `condswin.reporting.training`. None
            of a result depends on it.

    Raises:
        OutputError: Writing to `out` would hurt something.
        ConfigError: The variant is not in the parameters, or a setting needs validation cases.
        BadDataError: The data was changed, or prepared with other parameters.
        CheckpointError: Another process trains this, or a checkpoint cannot be written.
        TrackingError: MLflow cannot be reached when the training starts.
    """
    learning, section = load(Learning, task_name, config), config.task(task_name)
    training = _Training("train", learning, section.train, load(Facts, task_name, config).monitor, {})
    return _train(config, task_name, variant, training, prepared, checkpoints, out, overwrite, tags, watch, draw)


@joined()
def pretrain(
    config: Config,
    task_name: TaskName,
    variant: str,
    *,
    prepared: Path,
    checkpoints: Path,
    out: Path,
    overwrite: bool = False,
) -> Trained:
    """Trains a variant without labels, for trainings that start from it (`train.initial`).

    Arguments, result and errors are those of `train`. What is written predicts nothing.

    Raises:
        ConfigError: The task has no such training.
    """
    learning, train, monitor, parameters = load(Learning, task_name, config).pretraining()
    training = _Training("pretrain", learning, train, monitor, {PRETRAINING: dict(parameters)})
    return _train(
        config, task_name, variant, training, prepared, checkpoints, out, overwrite, None, lambda _: None, None
    )


def _train(
    config: Config,
    task_name: TaskName,
    variant: str,
    training: _Training,
    prepared: Path,
    checkpoints: Path,
    out: Path,
    overwrite: bool,
    tags: Mapping[str, str] | None,
    watch: Callable[[Rows], None],
    draw: Draw | None,
) -> Trained:
    section = config.task(task_name)
    chosen = section.variant(variant)
    step, learning, settings, monitor, more = training
    manifest = Manifest.read(prepared, task_name)
    manifest.verify(prepared)
    manifest.require_parameters(section.prepared_with(), prepared)
    validated = manifest.counts()["val"] > 0
    require_validation(settings, validated)
    in_channels, out_channels = learning.channels(chosen.network)
    initial = _initial(settings)
    # Which network it starts from counts, and not where that lies.
    settings = settings.model_copy(update={"initial": None})
    parameters = {
        "seed": config.seed,
        "train": settings.model_dump(mode="json"),
        "variant": {variant: chosen.model_dump(mode="json")},
        "data": manifest.parameters,
        **more,
    }
    inputs = {"data": manifest.fingerprint(), **({"initial": initial.spec.weights_sha256} if initial else {})}
    key = make_key("train", task_name, parameters={**parameters, "train": decisive(settings)}, inputs=inputs)
    places = [prepared, *([initial.folder] if initial else [])]
    output = open_output(out, step=step, inputs=places, overwrite=overwrite)
    if first(lambda: output.is_current(key.record())):
        spec = read_spec(out)
        first(lambda: send_rest(config, checkpoints / key.digest[:16], _weights(spec)))
        history = read_history(out / HISTORY)
        return Trained(spec, done_before=True, written=place().rank == 0, history=history)
    spec = ModelSpec(
        task=task_name,
        variant=variant,
        network=chosen.network,
        preset=chosen.preset,
        in_channels=in_channels,
        out_channels=out_channels,
        overrides=chosen.overrides,
        provenance={
            "data_sha256": manifest.fingerprint(),
            "params_sha256": fingerprint(parameters),
            "parameters": parameters,
            "seen": learning.seen(manifest),
            GENERATED: manifest.generated("train", "val"),
            TRAINED_ON: {split: manifest.known_by(split) for split in ("train", "val")},
            **more,
            **({SYNTHETIC: synthetic} if (synthetic := learning.synthetic()) else {}),
            "code": {**git_state(), "code_sha256": key.code_sha256, "libraries": libraries()},
        },
    )
    pl.seed_everything(config.seed, workers=True, verbose=False)
    network = spec.build()
    if initial:
        taken = transfer(network, initial.weights, str(initial.folder))
        spec = _descendant(spec, initial.spec, taken)
        if place().rank == 0:
            for line in taken.lines():
                say(f"{step} {task_name} {variant}: {initial.folder}: {line}")
    first(lambda: output.claim(OUTPUTS))
    folder, changes = first(lambda: training_folder(checkpoints, key))
    if changes and place().rank == 0:
        print(
            f"{step} {task_name} {variant}: starts anew, since the last checkpoint: {'; '.join(changes)}",
            file=sys.stderr,
        )
    where = described(config.task(task_name).train.device)
    tags = {"step": step, "task": task_name, "variant": variant, "device": where, **_fingerprints(spec), **(tags or {})}
    name = f"{step} {task_name} {variant}"
    trained = partial(
        fit,
        learning,
        network,
        settings,
        monitor=monitor,
        validated=validated,
        name=spec.network,
        prepared=prepared,
        checkpoints=folder,
        seed=config.seed,
        label=name,
    )
    if place().rank > 0:
        trained()
        return Trained(spec, done_before=False, written=False, history=[])
    logged = {**parameters, **steps_of(settings)}
    with (
        owned(folder) as require_owner,
        training_run(config, name, tags=tags, parameters=logged, folder=folder) as run,
    ):

        def report(rows: Rows) -> None:
            run.log(rows)
            watch(rows)

        fitted = trained(require_owner=require_owner, report=report, draw=draw)
        write_history(out / HISTORY, fitted.history)
        save_model(out, fitted.network, spec)
        output.finish(OUTPUTS, key.record())
        run.finish(fitted.told, _weights(read_spec(out)))
    return Trained(spec, done_before=False, written=True, history=fitted.history)


def _initial(train: TrainConfig) -> _Initial | None:
    if train.initial is None:
        return None
    folder = Path(train.initial)
    return _Initial(folder, *load_weights(folder))


def _descendant(spec: ModelSpec, initial: ModelSpec, taken: Transfer) -> ModelSpec:
    """A network that says which other one it started from, and that one's own ancestor."""
    known = ("data_sha256", GENERATED, TRAINED_ON, PRETRAINING, "initial")
    told = {name: initial.provenance[name] for name in known if name in initial.provenance}
    ancestor = {"task": initial.task, "variant": initial.variant, "weights_sha256": initial.weights_sha256, **told}
    marks = [spec.provenance[GENERATED], initial.provenance.get(GENERATED, "unknown")]
    more = {GENERATED: generated_of_all(marks), "initial": {**ancestor, "taken": taken.record()}}
    return replace(spec, provenance={**spec.provenance, **more})


def _fingerprints(spec: ModelSpec) -> dict[str, str]:
    return {name: spec.provenance[name] for name in ("data_sha256", "params_sha256")}


def _weights(spec: ModelSpec) -> dict[str, str]:
    """What the run of a training says of the network that it left."""
    return {"weights_sha256": spec.weights_sha256}
