"""Step: train one variant on prepared data."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.devices import described
from condswin.files import fingerprint
from condswin.layout import HISTORY
from condswin.manifest import GENERATED, Manifest
from condswin.networks.saving import DESCRIPTION, WEIGHTS, ModelSpec, read_spec, save_model
from condswin.outputs import open_output
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
    section = config.task(task_name)
    chosen = section.variant(variant)
    learning = load(Learning, task_name, config)
    manifest = Manifest.read(prepared, task_name)
    manifest.verify(prepared)
    manifest.require_parameters(section.prepared_with(), prepared)
    validated = manifest.counts()["val"] > 0
    require_validation(section.train, validated)
    in_channels, out_channels = learning.channels(chosen.network)
    parameters = {
        "seed": config.seed,
        "train": section.train.model_dump(mode="json"),
        "variant": {variant: chosen.model_dump(mode="json")},
        "data": manifest.parameters,
    }
    key = make_key(
        "train",
        task_name,
        parameters={**parameters, "train": decisive(section.train)},
        inputs={"data": manifest.fingerprint()},
    )
    output = open_output(out, step="train", inputs=[prepared], overwrite=overwrite)
    if first(lambda: output.is_current(key.record())):
        first(lambda: send_rest(config, checkpoints / key.digest[:16]))
        history = read_history(out / HISTORY)
        return Trained(read_spec(out), done_before=True, written=place().rank == 0, history=history)
    first(lambda: output.claim(OUTPUTS))
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
            "code": {**git_state(), "code_sha256": key.code_sha256, "libraries": libraries()},
        },
    )
    pl.seed_everything(config.seed, workers=True, verbose=False)
    network = spec.build()
    folder, changes = first(lambda: training_folder(checkpoints, key))
    if changes and place().rank == 0:
        print(
            f"train {task_name} {variant}: starts anew, since the last checkpoint: {'; '.join(changes)}",
            file=sys.stderr,
        )
    tags = {"step": "train", "task": task_name, "variant": variant, **_fingerprints(spec), **(tags or {})}
    name = f"train {task_name} {variant}"
    trained = partial(
        fit,
        learning,
        network,
        section.train,
        monitor=load(Facts, task_name, config).monitor,
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
    logged = {**parameters, **steps_of(section.train)}
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
        run.tag(
            {"weights_sha256": read_spec(out).weights_sha256, "device": described(config.task(task_name).train.device)}
        )
        run.finish(fitted.told)
    return Trained(spec, done_before=False, written=True, history=fitted.history)


def _fingerprints(spec: ModelSpec) -> dict[str, str]:
    return {name: spec.provenance[name] for name in ("data_sha256", "params_sha256")}
