"""Step: search for parameters with which a variant trains best, judged on validation cases."""

import gc
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL
from torch import distributed

from condswin.config.names import TaskName
from condswin.config.reading import parse_config, replaced
from condswin.config.root import Config
from condswin.config.search import Search, settings
from condswin.errors import BadDataError, BadFileError, ConfigError, DivergedError, PrunedError, StudyError
from condswin.files import read_json, write_json
from condswin.manifest import Manifest
from condswin.outputs import open_output
from condswin.plain import plain
from condswin.progress import say
from condswin.registry.training_run import PARENT, RUN, TrainingRun, send_rest, training_run
from condswin.tasks.facts import Facts
from condswin.tasks.loading import load
from condswin.training import decisive
from condswin.training.history import Rows
from condswin.training.ownership import owned
from condswin.trials import CAUSE, SAME, VALUES, Trials, database_errors, open_trials, seconds, wait_for
from condswin.trials import RUN as SHARED_RUN
from condswin.validity import make_key

#: Files of a search: the study, unless another database keeps it; the trials as they ended; who shares a study.
STUDY, RESULTS, OWNER = "study.db", "trials.json", "owner.json"
#: Trials that must have ended well before it is said which parameters mattered.
ENOUGH = 10

_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Training(Protocol):
    """The step that trains a variant, `condswin.steps.train.train`."""

    def __call__(
        self,
        config: Config,
        task_name: TaskName,
        variant: str,
        *,
        prepared: Path,
        checkpoints: Path,
        out: Path,
        tags: Mapping[str, str],
        watch: Callable[[Rows], None],
    ) -> Any:
        """Trains; what it returns has the `history`."""


def tune(
    config: Config,
    task_name: TaskName,
    variant: str,
    search: Search,
    *,
    train: Training,
    trials: int,
    seeds: int,
    prepared: Path,
    out: Path,
    storage: str = "",
    here: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Trains a variant with other parameters each time; those that did well decide what is tried next.

    What is done already is not done again: a search that was stopped or killed goes on, the trial under way from its
    last checkpoint, and more trials may be asked for later.

    Args:
        config: Parameters; the search replaces some.
        task_name: Which task.
        variant: A key of the task's `variants`.
        search: What to try.
        train: The training step.
        trials: How many in all.
        seeds: Trainings per trial, whose mean counts; seeds are counted from the parameters' one.
        prepared: Output of the prepare step.
        out: Folder for the study, the trials' checkpoints and networks, and `trials.json`.
        storage: PostgreSQL database that keeps the study instead, so that several processes share it, each with a
            folder of its own.
        here: How many trials this process makes at most; None for no limit.
        overwrite: Write into a folder that holds other files too.

    Returns:
        What `trials.json` holds: all trials, the best one first; the best one's settings; what mattered.

    Raises:
        ConfigError: There are no validation cases, or torchrun started this process.
        OutputError: Writing to `out` would hurt something.
        StudyError: The study has trials of other parameters, data or code; its database does not answer; no trial
            ended well.
        CheckpointError: Another process searches here.
        BadDataError: See `train`.
        TrackingError: See `train`.
    """
    if distributed.is_torchelastic_launched():
        raise ConfigError(f"tune: started by torchrun; start it by itself, and set {task_name}.train.processes")
    section = config.task(task_name)
    manifest = Manifest.read(prepared, task_name)
    manifest.verify(prepared)
    manifest.require_parameters(section.prepared_with(), prepared)
    if not manifest.counts()["val"]:
        raise BadDataError(f"{prepared}: no validation cases, which a search judges by; raise ingest.val_fraction")
    parameters = {
        "seed": config.seed,
        "seeds": seeds,
        "train": decisive(section.train),
        "variant": {variant: section.variant(variant).model_dump(mode="json")},
        "data": manifest.parameters,
        "search": search.model_dump(mode="json"),
    }
    # Of the code, what trains decides a trial's value.
    key = make_key("train", task_name, parameters=parameters, inputs={"data": manifest.fingerprint()})
    monitor = load(Facts, task_name, config).monitor
    output = open_output(out, step="tune", inputs=[prepared], overwrite=overwrite)
    files = [RESULTS, RUN, OWNER, STUDY]
    output.claim(files)
    uri = storage or URL.create("sqlite", database=str(out.absolute() / STUDY)).render_as_string()
    epochs = section.train.epochs * seeds
    with owned(out), database_errors(uri):
        study = open_trials(
            uri,
            f"{task_name}/{variant}",
            search,
            key,
            seed=config.seed,
            higher_is_better=monitor[1],
            epochs=epochs,
            owner=_owner(out) if storage else "",
        )
        study.put_back()
        left = study.left(trials)
        if not left:
            send_rest(config, out, _told(_results(study, task_name, variant, monitor)))
        else:
            tags = {"step": "tune", "task": task_name, "variant": variant}
            _adopt(study, out, bool(storage))
            with training_run(
                config, f"tune {task_name} {variant}", tags=tags, parameters=parameters, folder=out
            ) as run:
                study.study.set_user_attr(SHARED_RUN, run.id)
                objective = _Objective(config, task_name, variant, train, seeds, prepared, out, study, monitor, run)
                made = 0
                while (here is None or made < here) and (trial := study.take(trials)):
                    made += 1
                    study.run(trial, objective)
                    _tidy(study, study.place(trial), trials, out)
                run.finish([], _told(_results(study, task_name, variant, monitor)))
        results = _results(study, task_name, variant, monitor)
        results["trained"] = left
    write_json(out / RESULTS, results)
    output.finish(files, key.record())
    if not study.left(trials) and all(row["state"] == "failed" for row in results["trials"]):
        cause = results["trials"][0]["cause"]
        raise StudyError(f"{out}: none of {len(results['trials'])} trials ended well; the first: {cause}")
    return results


@dataclass(frozen=True)
class _Objective:
    """Trains a trial and returns its value: the mean over seeds of the best score on validation cases."""

    config: Config
    task_name: TaskName
    variant: str
    train: Training
    seeds: int
    prepared: Path
    out: Path
    study: Trials
    monitor: tuple[str, bool]
    run: TrainingRun

    def __call__(self, trial: Trial) -> float:
        given = settings(self.task_name, self.study.values(trial))
        place = self.study.place(trial)
        say(plain(f"trial {place}: {' '.join(given)}"))
        config = parse_config(replaced(self.config.values(), given), origin=f"trial {place}")
        if twin := self.study.twin(trial):
            return self._again(trial, twin)
        values: list[float] = []
        for seed in range(self.config.seed, self.config.seed + self.seeds):
            folder = self.out / "trials" / f"{place:04}" / f"seed-{seed}"
            tags = {PARENT: self.run.id, "mlflow.runName": f"trial {place}", "trial": str(place), "seed": str(seed)}
            if self.seeds > 1:
                tags["mlflow.runName"] += f", seed {seed}"
            epochs = config.task(self.task_name).train.epochs
            watch = _Watch(trial, values, epochs, len(values) + 1 == self.seeds, self.score)
            trained = self.train(
                config.model_copy(update={"seed": seed}),
                self.task_name,
                self.variant,
                prepared=self.prepared,
                checkpoints=folder / "checkpoints",
                out=folder / "model",
                tags=tags,
                watch=watch,
            )
            watch.report(trained.history)
            values.append(self.score(trained.history))
            trial.set_user_attr(VALUES, values)
        if not math.isfinite(value := float(np.mean(values))):
            raise DivergedError(f"{self.monitor[0]} of validation cases was never finite")
        return value

    def score(self, rows: Rows) -> float:
        """The best score of a history so far; NaN while there is none."""
        name, higher_is_better = self.monitor
        values = [value for row in rows if math.isfinite(value := row[f"val/{name}"])]
        return (max if higher_is_better else min)(values, default=math.nan)

    def _again(self, trial: Trial, twin: FrozenTrial) -> float:
        """What was tried before ends as it did then."""
        trial.set_user_attr(SAME, self.study.place(twin))
        trial.set_user_attr(VALUES, twin.user_attrs.get(VALUES, []))
        if twin.state == TrialState.PRUNED or twin.value is None:
            raise PrunedError
        return twin.value


class _Watch:
    """Tells the study each epoch's value so far, and gives the trial up if the study says so."""

    def __init__(
        self, trial: Trial, values: Sequence[float], epochs: int, last: bool, score: Callable[[Rows], float]
    ) -> None:
        self._trial, self._values, self._epochs, self._last, self._score = trial, list(values), epochs, last, score
        self._reported = 0

    def __call__(self, rows: Rows) -> None:
        self.report(rows)
        if not (self._last and len(rows) == self._epochs) and self._trial.should_prune():
            raise PrunedError(f"given up after {len(self._values) * self._epochs + len(rows)} epochs")

    def report(self, rows: Rows) -> None:
        before = len(self._values) * self._epochs
        for count in range(self._reported + 1, len(rows) + 1):
            self._trial.report(float(np.mean([*self._values, self._score(rows[:count])])), before + count)
        self._reported = len(rows)


def _tidy(study: Trials, place: int, total: int, out: Path) -> None:
    """Says how a trial ended, and removes what it would have gone on from."""
    trial = study.places()[place]
    if trial.state in _STATES:
        value = "" if trial.value is None else f", {trial.value:.5g}"
        cause = f": {trial.user_attrs[CAUSE]}" if CAUSE in trial.user_attrs else ""
        say(plain(f"trial {place} of {total}: {_STATES[trial.state]}{value}{cause}"))
        for state in (out / "trials" / f"{place:04}").glob("*/checkpoints/*/*.ckpt*"):
            state.unlink()
    if trial.state == TrialState.FAIL:
        gc.collect()  # what it held on a GPU


def _owner(out: Path) -> str:
    """Stands for whoever searches in a folder, in a study that others share."""
    try:
        return str(read_json(out / OWNER)["owner"])
    except (BadFileError, KeyError, TypeError):
        token = secrets.token_hex(8)
        write_json(out / OWNER, {"owner": token})
        return token


def _adopt(study: Trials, out: Path, shared: bool) -> None:
    """Goes on in the MLflow run that the study has; whoever made the study makes it."""
    known = study.study.user_attrs.get(SHARED_RUN)
    if known is None and shared and not study.made:
        known = wait_for(study.study, SHARED_RUN)
    if known is not None:
        write_json(out / RUN, {"run_id": known, "ended": False})


def _results(study: Trials, task_name: TaskName, variant: str, monitor: tuple[str, bool]) -> dict[str, Any]:
    rows = [_row(study, place, trial) for place, trial in sorted(study.places().items())]
    order = {"complete": 0, "pruned": 1, "failed": 2, "running": 3}
    sign = -1 if monitor[1] else 1
    rows.sort(key=lambda row: (order[row["state"]], sign * (row["value"] or 0.0), row["trial"]))
    best = rows[0] if rows and rows[0]["state"] == "complete" else None
    return {
        "task": task_name,
        "variant": variant,
        "metric": monitor[0],
        "higher_is_better": monitor[1],
        "trials": rows,
        "best": best and {**best, "settings": settings(task_name, best["params"])},
        "importances": _importances(study.study, rows),
    }


def _row(study: Trials, place: int, trial: FrozenTrial) -> dict[str, Any]:
    state = _STATES.get(trial.state, "running")
    killed = "its process was killed each time" if state == "failed" else None
    return {
        "trial": place,
        "state": state,
        "value": trial.value if state != "failed" else None,
        "values": [value if math.isfinite(value) else None for value in trial.user_attrs.get(VALUES, [])],
        "epochs": len(trial.intermediate_values),
        "seconds": round(seconds(trial), 1),
        "params": study.shown(trial),
        "same_as": trial.user_attrs.get(SAME),
        "cause": trial.user_attrs.get(CAUSE, killed),
    }


def _importances(study: optuna.Study, rows: list[dict[str, Any]]) -> dict[str, float]:
    """How much of the difference between good trials and others each parameter accounts for; sums to 1."""
    values = {row["value"] for row in rows if row["state"] == "complete"}
    if len(values) < ENOUGH:
        return {}
    return optuna.importance.get_param_importances(study)


def _told(results: Mapping[str, Any]) -> dict[str, str]:
    """What the search's MLflow run is tagged with at the end."""
    best = results["best"]
    if best is None:
        return {}
    return {"best_trial": str(best["trial"]), results["metric"]: f"{best['value']}", "best": " ".join(best["settings"])}
