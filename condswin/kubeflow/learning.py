"""Tasks that train."""

import os
import shutil
import tempfile
from pathlib import Path

from condswin import layout
from condswin.errors import ConfigError
from condswin.kubeflow.given import read, require
from condswin.outcomes import settled


@settled
def train(params: str, task: str, code: str, variant: str, checkpoints: str, prepared: str, model: str) -> None:
    """Trains a variant."""
    from condswin.reporting.training import drawing
    from condswin.steps.train import train as step

    config = read(params, task)
    require(code, "train", task)
    with tempfile.TemporaryDirectory() as scratch:
        step(
            config,
            task,
            variant,
            prepared=Path(prepared),
            checkpoints=Path(checkpoints, task, variant) if checkpoints else Path(scratch),
            out=Path(model),
            draw=drawing(config, task),
        )


@settled
def tune(
    params: str,
    task: str,
    code: str,
    variant: str,
    search: str,
    trials: int,
    seeds: int,
    checkpoints: str,
    lane: int,
    prepared: str,
    results: str,
) -> None:
    """Makes one trial of a search whose study other tasks share."""
    from condswin.config.search import Search, shared_database
    from condswin.steps.train import train as training
    from condswin.steps.tune import RESULTS
    from condswin.steps.tune import tune as step

    config = read(params, task)
    require(code, "tune", task)
    storage = shared_database(os.environ.get("CONDSWIN_STORAGE", ""))
    if not storage:
        raise ConfigError(
            "CONDSWIN_STORAGE: not in the environment; name in cluster.secrets a Secret that holds the PostgreSQL "
            "database that trials share"
        )
    with tempfile.TemporaryDirectory() as scratch:
        # One after another, the trials of a lane have a folder: a task that comes back finds its own there.
        out = Path(checkpoints or scratch, layout.search(task, variant), str(lane))
        step(
            config,
            task,
            variant,
            Search.model_validate_json(search),
            train=training,
            trials=trials,
            seeds=seeds,
            here=1,
            prepared=Path(prepared),
            out=out,
            storage=storage,
        )
        Path(results).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(out / RESULTS, Path(results, RESULTS))
