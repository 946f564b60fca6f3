"""Recurring runs as `infra/schedules.yaml` has them: what differs is found, and put right."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import kfp_server_api as kfp

from condswin.config.reading import read_yaml, validated
from condswin.config.section import Section
from condswin.errors import ConfigError
from condswin.files import fingerprint
from pipelines.api import Backend, BackendError

SCHEDULES = Path("infra/schedules.yaml")
#: How the descriptions of recurring runs begin that were made here; others are never touched.
OURS = "made by `python -m pipelines schedules apply`, key "

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
#: Of each field of a cron line: its name, bounds, and names of values.
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("second", 0, 59, []),
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)


class Schedule(Section):
    """When a pipeline is run.

    Attributes:
        cron: Six fields: second, minute, hour, day of month, month, day of week; in the backend's time zone (UTC).
        pipeline: Its name, as `submit --pipeline` takes it.
        tasks: Which of the parameters' tasks; empty for all.
        params: Parameters file, from the folder that the command is run in.
        set: Values that replace the file's, as `--set`.
        enabled: Whether it fires; a recurring run that does not stays on the backend, switched off.
    """

    cron: str
    pipeline: str = "retraining"
    tasks: list[str] = []  # noqa: RUF012
    params: str = "params.yaml"
    set: list[str] = []  # noqa: RUF012
    enabled: bool = True


class Schedules(Section):
    """What `infra/schedules.yaml` holds.

    Attributes:
        schedules: By name, which the recurring run gets.
    """

    schedules: dict[str, Schedule]


def read_schedules(path: Path) -> dict[str, Schedule]:
    """The schedules of a file.

    Raises:
        ConfigError: A key, name or cron line is wrong.
    """
    found = validated(Schedules, read_yaml(path), origin=str(path)).schedules
    for name, schedule in found.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{path}: schedules.{name}: give a name of the letters a to z, digits and -, at most 63")
        if problem := cron_problem(schedule.cron):
            raise ConfigError(f"{path}: schedules.{name}.cron: {schedule.cron!r}: {problem}")
    return found


def cron_problem(cron: str) -> str | None:
    """Why the backend would not take a cron line, or would fire all the time; None if it is good."""
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        names = ", ".join(name for name, *_ in _FIELDS)
        return f"{len(fields)} fields; the backend takes six: {names}, as '0 0 2 * * sun'"
    for text, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in text.lower().split(","):
            match = re.fullmatch(r"(\*|\?|(\w+)(-(\w+))?)(/(\d+))?", part)
            ends = (
                [names.index(end) + low if end in names else end for end in (match[2], match[4]) if end]
                if match
                else []
            )
            if match is None or not all(str(end).isdigit() and low <= int(end) <= high for end in ends):
                return f"{name}: {part!r} is none of *, {low}-{high}, lists, ranges and steps"
            if len(ends) == 2 and int(ends[0]) > int(ends[1]):
                return f"{name}: {part!r} ends before it begins"
            if match[6] is not None and not 0 < int(match[6]) <= high:
                return f"{name}: {part!r} has a step beyond its field"
    if not (fields[0].isdigit() and fields[1].isdigit()):
        return "second and minute: give one number each, or it fires more than once an hour"
    return None


@dataclass(frozen=True)
class Change:
    """What is to be done about a recurring run.

    Attributes:
        name: Of the schedule.
        what: `create`, `replace`, `enable`, `disable` or `remove`.
        why: In a few words.
        actions: Do it, one after another.
    """

    name: str
    what: str
    why: str
    actions: list[Callable[[], None]]


def wanted(
    name: str, schedule: Schedule, spec: dict[str, object], *, experiment: str, service_account: str
) -> kfp.V2beta1RecurringRun:
    """The recurring run of a schedule; its key, in the description, has all of it but whether it is switched on."""
    key = fingerprint([schedule.cron, spec, service_account, experiment])
    on = kfp.RecurringRunMode.ENABLE if schedule.enabled else kfp.RecurringRunMode.DISABLE
    return kfp.V2beta1RecurringRun(
        display_name=name,
        description=f"{OURS}{key}",
        experiment_id=experiment,
        pipeline_spec=spec,
        runtime_config=kfp.V2beta1RuntimeConfig(parameters={}),
        service_account=service_account or None,
        # A backend that was down would otherwise start every run that it missed, one beside the other.
        no_catchup=True,
        max_concurrency="1",
        trigger=kfp.V2beta1Trigger(cron_schedule=kfp.V2beta1CronSchedule(cron=schedule.cron)),
        mode=on,
    )


def changes(backend: Backend, experiment: str, planned: Iterable[kfp.V2beta1RecurringRun]) -> list[Change]:
    """What makes the backend's recurring runs those that are planned; nothing where they are so already.

    Raises:
        BackendError: Somebody else's recurring run has a planned name.
    """
    plan = {each.display_name: each for each in planned}
    there: dict[str, list[kfp.V2beta1RecurringRun]] = {}
    for each in backend.recurring(experiment) if experiment else []:
        if (each.description or "").startswith(OURS):
            there.setdefault(each.display_name, []).append(each)
        elif each.display_name in plan:
            raise BackendError(
                f"{backend.host}: a recurring run {each.display_name!r} was not made by this command; rename the "
                "schedule, or delete that one"
            )
    found = []
    for name, new in plan.items():
        ours = there.pop(name, [])
        same = next((each for each in ours if _same(each, new)), None)
        removals = [_removal(backend, each) for each in ours if each is not same]
        if same is None:
            # Removed first: a moment without the schedule is harmless, two of it would both fire.
            actions = [*removals, partial(backend.schedule, new)]
            found.append(Change(name, "replace" if ours else "create", new.trigger.cron_schedule.cron, actions))
            continue
        if removals:
            found.append(Change(name, "remove", "there twice", removals))
        if _is_on(same) != _is_on(new):
            what = "enable" if _is_on(new) else "disable"
            found.append(Change(name, what, "", [partial(backend.enable, same.recurring_run_id, _is_on(new))]))
    for name, ours in there.items():
        found.append(Change(name, "remove", "not in the file", [_removal(backend, each) for each in ours]))
    return found


def _same(there: kfp.V2beta1RecurringRun, new: kfp.V2beta1RecurringRun) -> bool:
    """Whether nothing differs but being switched on: also of what somebody may have changed on the backend."""
    cron = there.trigger.cron_schedule.cron if there.trigger and there.trigger.cron_schedule else None
    return (
        there.description == new.description
        and cron == new.trigger.cron_schedule.cron
        and bool(there.no_catchup)
        and str(there.max_concurrency) == "1"
    )


def _is_on(recurring: kfp.V2beta1RecurringRun) -> bool:
    return recurring.status == "ENABLED" if recurring.status else recurring.mode == "ENABLE"


def _removal(backend: Backend, there: kfp.V2beta1RecurringRun) -> Callable[[], None]:
    return partial(backend.unschedule, there.recurring_run_id)
