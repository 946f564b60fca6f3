"""The trials of a search, in an Optuna study that outlives its processes and that several of them may share.

A study of N trials has N places. A trial whose process ended under way counts as failed in Optuna; a copy with its
parameters and its place waits for the next process. What is drawn for a place depends on seed, place and the trials
before, and not on how often the search was interrupted.
"""

import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, OptunaError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import JsonValue
from sqlalchemy.exc import SQLAlchemyError

from condswin.config.search import Range, Search
from condswin.errors import ConfigError, DivergedError, PrunedError, RankError, StudyError
from condswin.files import fingerprint
from condswin.registry.tracking import PATIENCE, without_password
from condswin.validity import Key

#: Seconds between two signs of life of a trial in a shared study, and until one without is taken for dead.
BEAT, LEASE = 10, 45
#: How often the process of a trial may be killed before the trial counts as failed.
KILLS = 3
#: Seconds for which a process waits for the one that makes the study.
WAIT = 30.0

#: What ends a trial and not the search: its parameters may be the reason.
FAILURES = (DivergedError, ConfigError, RankError, MemoryError, RuntimeError)

# Attributes of the study, and of trials in it.
_KEY, RUN = "key", "run"
_PLACE, _SURPLUS, _OWNER, _KILLED, _SECONDS = "place", "surplus", "owner", "killed", "seconds"
CAUSE, VALUES, SAME = "cause", "values", "same"

_STORED = (type(None), bool, int, float, str)


class Trials:
    """The trials of a study.

    Args:
        study: The study.
        storage: Its database.
        space: What parameters are drawn from.
        owner: Stands for this process and those that take its place, in a shared study; empty in one that is not.
        made: This process made the study.
    """

    def __init__(
        self, study: optuna.Study, storage: RDBStorage, space: Mapping[str, Range], owner: str, made: bool
    ) -> None:
        self.study = study
        self.made = made
        self._storage, self._space, self._owner = storage, space, owner

    def places(self) -> dict[int, FrozenTrial]:
        """The last trial of each place."""
        trials = self.study.get_trials(deepcopy=False)
        return {_place(trial, trials): trial for trial in trials if _SURPLUS not in trial.user_attrs}

    def place(self, trial: Trial | FrozenTrial) -> int:
        """The place of a trial, from 0."""
        trials = self.study.get_trials(deepcopy=False)
        return _place(trials[trial.number], trials)

    def put_back(self) -> None:
        """Puts back the trials that were under way when this process was killed: before it takes any."""
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            if not self._owner or trial.user_attrs.get(_OWNER) == self._owner:
                # First the copy: a kill in between leaves both, and one of the place is enough then.
                if trial.number == self.places()[self.place(trial)].number:
                    _copy(self.study, trial, killed=True)
                self.study.tell(trial.number, state=TrialState.FAIL)

    def left(self, total: int) -> bool:
        """Whether anything is to be done until there are as many trials as wanted, or others are doing it."""
        places = self.places()
        return len(places) < total or not all(trial.state.is_finished() for trial in places.values())

    def take(self, total: int) -> Trial | None:
        """The next trial; None if there are as many as wanted, and none that another process left is to be done.

        Args:
            total: Trials wanted.
        """
        waited = time.monotonic()
        while True:
            optuna.storages.fail_stale_trials(self.study)
            places = self.places()
            states = {trial.state for trial in places.values()}
            if TrialState.WAITING in states or len(places) < total:
                trial = self.study.ask()
                if self.place(trial) < total:
                    return trial
                # Another process was quicker.
                trial.set_user_attr(_SURPLUS, True)
                self.study.tell(trial, state=TrialState.FAIL)
            elif not self._owner or TrialState.RUNNING not in states or time.monotonic() - waited > LEASE:
                return None
            else:  # those who have the last trials may be dead
                time.sleep(1)

    def values(self, trial: Trial) -> dict[str, JsonValue]:
        """The parameters of a trial by key, drawn in the order of the space."""
        drawn: dict[str, JsonValue] = {}
        for key, range_ in self._space.items():
            if range_.choices:
                stored = _stored(range_.choices)
                drawn[key] = stored[trial.suggest_categorical(key, list(stored))]
            elif range_.low is not None and range_.high is not None:
                suggest: Callable[..., float] = trial.suggest_int if range_.step else trial.suggest_float
                step = {"step": range_.step} if range_.step else {}
                low, high = range_.value(range_.low), range_.value(range_.high)
                drawn[key] = suggest(key, low, high, log=range_.log, **step)
        return drawn

    def shown(self, trial: FrozenTrial) -> dict[str, JsonValue]:
        """The parameters of a trial that was taken."""
        stored = {key: _stored(range_.choices) for key, range_ in self._space.items()}
        return {key: stored[key].get(value, value) for key, value in trial.params.items() if key in stored}

    def twin(self, trial: Trial) -> FrozenTrial | None:
        """A trial of the same parameters that has ended well, or was given up."""
        ended = self.study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
        return next((other for other in ended if other.params == trial.params), None)

    def run(self, trial: Trial, objective: Callable[[Trial], float]) -> None:
        """Runs a trial and tells the study how it ended.

        Args:
            trial: The trial.
            objective: Its value; raises PrunedError or one of `FAILURES` if the trial ends without. Whatever else it
                raises ends the search, and the trial is put back.
        """
        started = time.monotonic()
        with self._beating(trial):
            try:
                value = objective(trial)
            except PrunedError:
                self.study.tell(trial, state=TrialState.PRUNED)
            except UpdateFinishedTrialError:
                place = self.place(trial)
                print(f"trial {place}: another process took it over while this one stood still", file=sys.stderr)
            except FAILURES as error:
                trial.set_user_attr(CAUSE, (str(error).strip() or type(error).__name__).splitlines()[0])
                self.study.tell(trial, state=TrialState.FAIL)
            except BaseException:
                with suppress(SQLAlchemyError, OptunaError):  # else the next start does
                    took = time.monotonic() - started
                    _copy(self.study, self.study.get_trials(deepcopy=False)[trial.number], killed=False, took=took)
                    self.study.tell(trial, state=TrialState.FAIL)
                raise
            else:
                self.study.tell(trial, value)

    @contextmanager
    def _beating(self, trial: Trial) -> Iterator[None]:
        if not self._owner:
            yield
            return
        done = threading.Event()
        self._storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(_OWNER, self._owner)

        def beat() -> None:
            while not done.wait(BEAT):
                with suppress(SQLAlchemyError, OptunaError):  # a server that is away may be back with the next one
                    self._storage.record_heartbeat(trial._trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class _ByPlace(BaseSampler):
    """Optuna's TPE with a random generator for each place, so that an interrupted search draws what an unbroken does.

    Args:
        seed: Of the search.

    Attributes:
        study: Whose trials have places; pruners hand a sampler a part of it.
    """

    study: optuna.Study

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def _sampler(self, trial: FrozenTrial, name: str) -> TPESampler:
        place = _place(trial, self.study.get_trials(deepcopy=False))
        return TPESampler(seed=int(fingerprint([self._seed, place, name])[:8], 16), multivariate=True)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler(trial, "").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler(trial, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler = self._sampler(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def open_trials(
    uri: str, name: str, search: Search, key: Key, *, seed: int, higher_is_better: bool, epochs: int, owner: str
) -> Trials:
    """Opens a study, which is made if it is not there.

    Args:
        uri: Of its database.
        name: The study's.
        search: What parameters are drawn from, and when a trial is given up.
        key: What decides a trial's value.
        seed: Of what is drawn.
        higher_is_better: Whether a higher value is.
        epochs: Of a whole trial.
        owner: See `Trials`.

    Raises:
        StudyError: The study is of another key.
    """
    if not logging.getLogger("condswin").isEnabledFor(logging.INFO):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for category, message in ((ExperimentalWarning, ""), (UserWarning, "Heartbeat of storage")):
            warnings.filterwarnings("ignore", message, category)
    storage = _storage(uri, shared=bool(owner))
    sampler = _ByPlace(seed)
    options: dict[str, Any] = {"storage": storage, "sampler": sampler, "pruner": _pruner(search, epochs)}
    try:
        direction = StudyDirection.MAXIMIZE if higher_is_better else StudyDirection.MINIMIZE
        study, made = optuna.create_study(study_name=name, direction=direction, **options), True
        study.set_user_attr(_KEY, key.record())
    except DuplicatedStudyError:
        study, made = optuna.load_study(study_name=name, **options), False
        known = wait_for(study, _KEY, WAIT if owner else 0)
        if known is None:  # whoever made the study was killed before it could say what for
            study.set_user_attr(_KEY, key.record())
        elif changes := key.changes_since(known):
            raise StudyError(
                f"{without_password(uri)}: the study {name} has trials of others: {'; '.join(changes)}; "
                "go back to these, or give another --out, or another database to --storage"
            ) from None
    sampler.study = study
    return Trials(study, storage, search.space, owner, made)


def wait_for(study: optuna.Study, name: str, patience: float = WAIT) -> Any:
    """An attribute of a study that the process which made it sets; None if it does not in so many seconds."""
    give_up = time.monotonic() + patience
    while name not in (attributes := study.user_attrs) and time.monotonic() < give_up:
        time.sleep(0.2)
    return attributes.get(name)


def seconds(trial: FrozenTrial) -> float:
    """How long a trial took, before an interruption too, unless it was killed."""
    took = trial.duration.total_seconds() if trial.duration else 0.0
    return float(trial.user_attrs.get(_SECONDS, 0.0)) + took


@contextmanager
def database_errors(uri: str) -> Iterator[None]:
    """Turns errors of a study's database into one that names it."""
    try:
        yield
    except (SQLAlchemyError, OptunaError) as error:
        cause = error.__cause__ or error
        reason = without_password((str(cause).strip().splitlines() or [type(cause).__name__])[0])
        raise StudyError(
            f"{without_password(uri)}: the study's database does not answer or refuses ({reason[:300]}); it must be "
            "one of its own, not MLflow's. Start again when it is back: the search goes on"
        ) from error


def _storage(uri: str, *, shared: bool) -> RDBStorage:
    """The database; processes that begin at once may be in each other's way while its tables are made."""
    beats: dict[str, Any] = {}
    if shared:
        again = partial(_copy, killed=True)
        beats = {"heartbeat_interval": BEAT, "grace_period": LEASE, "heartbeat_stale_trial_callback": again}
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return RDBStorage(uri, **beats)
        except SQLAlchemyError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.5)


def _pruner(search: Search, epochs: int) -> BasePruner:
    if search.pruner == "median":
        return MedianPruner(n_startup_trials=search.startup_trials, n_warmup_steps=search.startup_epochs)
    if search.pruner == "hyperband":
        return HyperbandPruner(min_resource=search.startup_epochs, max_resource=max(epochs, search.startup_epochs))
    return NopPruner()


def _place(trial: FrozenTrial, trials: list[FrozenTrial]) -> int:
    """A copy says which it has; others count those before them."""
    if _PLACE in trial.user_attrs:
        return int(trial.user_attrs[_PLACE])
    before = (other.user_attrs for other in trials if other.number < trial.number)
    return sum(_PLACE not in attributes and _SURPLUS not in attributes for attributes in before)


def _copy(study: optuna.Study, trial: FrozenTrial, *, killed: bool, took: float = 0.0) -> None:
    """Lets a trial wait for a process once more, unless it was killed too often."""
    kills = trial.user_attrs.get(_KILLED, 0) + killed
    if kills < KILLS:
        place = _place(trial, study.get_trials(deepcopy=False))
        took += trial.user_attrs.get(_SECONDS, 0.0)
        study.enqueue_trial(trial.params, user_attrs={_PLACE: place, _KILLED: kills, _SECONDS: took})


def _stored(choices: list[JsonValue]) -> dict[Any, JsonValue]:
    """Choices by what Optuna keeps in a database: plain values, and others as JSON."""
    return {choice if isinstance(choice, _STORED) else json.dumps(choice): choice for choice in choices}
