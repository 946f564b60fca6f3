"""Step: train one variant on prepared data."""

import csv
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import MLFlowLogger

from condswin.config import Config, TaskName
from condswin.datasets import Manifest
from condswin.errors import ConfigError
from condswin.files import atomic_file, fingerprint
from condswin.layout import HISTORY
from condswin.networks.saving import ModelSpec, save_model
from condswin.registry.tracking import tracked_run, tracking_uri
from condswin.tasks.facts import Facts
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.training import fit


def train(
    config: Config, task_name: TaskName, variant: str, *, prepared: Path, checkpoints: Path, out: Path
) -> ModelSpec:
    """Trains a variant and writes the best epoch's weights.

    Args:
        config: Parameters.
        task_name: Which task.
        variant: A key of the task's `variants`.
        prepared: Output of the prepare step.
        checkpoints: Folder that survives interruptions; training goes on from its last checkpoint.
        out: Model folder: `model.safetensors`, `model.json`, `history.csv`.

    Raises:
        ConfigError: The variant is not in the parameters, or its settings are impossible.
    """
    section = config.task(task_name)
    if variant not in section.variants:
        raise ConfigError(f"{task_name}.variants: no {variant!r}; there are: {', '.join(section.variants)}")
    chosen = section.variants[variant]
    learning = load(Learning, task_name, config)
    manifest = Manifest.read(prepared, task_name)
    manifest.verify(prepared)
    in_channels, out_channels = learning.channels(variant)
    parameters = {
        "seed": config.seed,
        "train": section.train.model_dump(mode="json"),
        "variant": {variant: chosen.model_dump(mode="json")},
        "data": manifest.parameters,
    }
    spec = ModelSpec(
        task=task_name,
        variant=variant,
        preset=chosen.preset,
        in_channels=in_channels,
        out_channels=out_channels,
        overrides=chosen.overrides,
        provenance={
            "data_sha256": manifest.fingerprint(),
            "params_sha256": fingerprint(parameters),
            "parameters": parameters,
        },
    )
    pl.seed_everything(config.seed, workers=True, verbose=False)
    try:
        network = spec.build()
    except ValueError as error:
        raise ConfigError(f"{task_name}.variants.{variant}: {error}") from None
    tags = {"step": "train", "task": task_name, "variant": variant, **_fingerprints(spec)}
    with tracked_run(config, f"train {task_name} {variant}", tags) as run_id:
        logger = MLFlowLogger(tracking_uri=tracking_uri(config), run_id=run_id)
        logger.log_hyperparams(parameters)
        fitted = fit(
            learning,
            network,
            section.train,
            monitor=load(Facts, task_name, config).monitor,
            validated=manifest.counts()["val"] > 0,
            variant=variant,
            prepared=prepared,
            checkpoints=checkpoints,
            key=fingerprint([spec.provenance["data_sha256"], spec.provenance["params_sha256"]]),
            seed=config.seed,
            label=f"train {task_name} {variant}",
            loggers=[logger],
        )
    _write_history(out / HISTORY, fitted.history)
    save_model(out, fitted.network, spec)
    return spec


def _fingerprints(spec: ModelSpec) -> dict[str, str]:
    return {name: spec.provenance[name] for name in ("data_sha256", "params_sha256")}


def _write_history(path: Path, rows: list[dict[str, float]]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=sorted({name for row in rows for name in row}), restval="")
        writer.writeheader()
        writer.writerows(rows)
