"""The champion of a registered model: who it is, and moving it under a lock that holds across machines.

MLflow's aliases are last-writer-wins, and deleting a version silently deletes its alias. So the champion moves only
under `promotion_lock`, each move is journaled in tags, and a champion that vanished is told from one that never was.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from condswin.errors import GateError
from condswin.registry.events import event_tag, events
from condswin.registry.lock import promotion_lock

CHALLENGER = "challenger"
CHAMPION = "champion"
PREVIOUS = "previous-champion"

#: Version tag: which network it is. Makes registering idempotent.
KEY = "condswin.key"
#: Version tags. The record is the JSON that `promote` writes; it stays when the champion moves on.
RECORD = "condswin.promotion"
PROMOTED_AT = "condswin.promoted_at"
PREVIOUS_CHAMPION = "condswin.previous_champion"
ROLLED_BACK = "condswin.rolled_back"
#: A person's no: who, when and why, as JSON.
REJECTED = "condswin.rejected"
#: A person's yes, set on MLflow's page; see `condswin.registry.approval`.
APPROVAL = "condswin.approval"
#: Tag of the registered model: the version that was made champion last.
LAST_CHAMPION = "condswin.champion"
#: Tag of the registered model while no alias may move: who, when and why, as JSON.
FROZEN = "condswin.frozen"

_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class Answer(NamedTuple):
    """What became of a person's word.

    Attributes:
        changed: Something did; else it was so already.
        champion: The version that is champion then.
        text: It in words.
    """

    changed: bool
    champion: str | None
    text: str


def aliased(client: MlflowClient, name: str, alias: str) -> str | None:
    """Version that an alias points at, None if there is no such alias or model.

    Raises:
        GateError: It points at a version that does not exist.
    """
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code not in _MISSING:  # 3.17 says "invalid parameter" for an alias that is not there
            raise
    try:
        pointed = client.get_registered_model(name).aliases.get(alias)
    except MlflowException as error:
        if error.error_code in _MISSING:
            return None
        raise
    if pointed is not None:
        raise GateError(
            f"{name}: the alias {alias!r} points at version {pointed}, which does not exist; delete the alias in "
            "MLflow, or point it at a version that does"
        )
    return None


def find_version(client: MlflowClient, name: str, version: str) -> ModelVersion | None:
    """A version, None if it does not exist (any more)."""
    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def current_champion(client: MlflowClient, name: str) -> str | None:
    """The champion's version, None before the first promotion and after somebody took the alias away.

    Raises:
        GateError: The champion's version was deleted, and its alias with it.
    """
    version = aliased(client, name, CHAMPION)
    if version is not None:
        return version
    last = client.get_registered_model(name).tags.get(LAST_CHAMPION)
    if last is not None and find_version(client, name, last) is None:
        raise GateError(
            f"{name}: champion version {last} was deleted, so there is nothing to compare with; `condswin rollback` "
            f"makes its predecessor champion again, or delete the tag {LAST_CHAMPION!r} of the registered model to "
            "start without a champion"
        )
    return None


def move_champion(
    client: MlflowClient, name: str, version: str, *, expected: str | None, record: Mapping[str, Any]
) -> None:
    """Makes `version` champion and the champion previous-champion, if `expected` still is the champion.

    Does nothing if `version` became champion meanwhile.

    Raises:
        GateError: The champion moved since it was read, or is frozen, or the version was rejected or rolled back;
            nothing was changed. Or another program moved it meanwhile.
    """
    with promotion_lock(client, name) as write:
        now = aliased(client, name, CHAMPION)
        if now == version:  # the same promotion, run twice at once
            return
        _require_not_frozen(client, name)
        if now != expected:
            raise GateError(
                f"{name}: the champion moved from {_spoken(expected)} to {_spoken(now)} while version {version} was "
                "compared with it; nothing was changed, promote again"
            )
        if withheld := refusal(version, client.get_model_version(name, version).tags):
            raise GateError(f"{name}: nothing was changed: {withheld}")
        write(client.set_model_version_tag, name, version, RECORD, json.dumps(record, sort_keys=True))
        write(client.set_registered_model_tag, name, LAST_CHAMPION, version)
        if expected is not None:
            write(client.set_registered_model_alias, name, PREVIOUS, expected)
        write(client.set_registered_model_alias, name, CHAMPION, version)
        _confirm(client, name, version)
        journal(client, name, version, previous=expected, record=record)


def note_rejection(client: MlflowClient, name: str, version: str, record: Mapping[str, Any]) -> None:
    """Notes on a version why it was rejected or held, and takes back a person's yes to an earlier decision.

    Raises:
        GateError: It became champion meanwhile, and keeps the record of that.
    """
    with promotion_lock(client, name) as write:
        if aliased(client, name, CHAMPION) == version:
            raise GateError(
                f"{name}: version {version} became champion while it was judged and rejected; nothing was changed, "
                "promote again"
            )
        # Before the decision is there: what is set from then on is a yes to it.
        if APPROVAL in client.get_model_version(name, version).tags:
            write(client.delete_model_version_tag, name, version, APPROVAL)
        write(client.set_model_version_tag, name, version, RECORD, json.dumps(record, sort_keys=True))


def refusal(version: str, tags: Mapping[str, str]) -> str | None:
    """Why a version must not become champion: it was rolled back, or a person rejected it; None if it may."""
    for tag, done in ((ROLLED_BACK, "rolled back"), (REJECTED, "rejected")):
        if tag in tags:
            note = json.loads(tags[tag])
            by = f" by {note['by']} ({note['why']})" if "by" in note else ""
            return f"version {version} was {done} at {note['at']}{by}; delete its tag {tag!r} to try again"
    return None


def journal(client: MlflowClient, name: str, version: str, *, previous: str | None, record: Mapping[str, Any]) -> None:
    """Notes on a version when it became champion, and after whom; keeps an earlier note. And tells of the event."""
    tags = client.get_model_version(name, version).tags
    if previous is not None and PREVIOUS_CHAMPION not in tags:
        client.set_model_version_tag(name, version, PREVIOUS_CHAMPION, previous)
    by, why = record.get("approved_by") or "gate", record.get("why", "")
    at = tags.get(PROMOTED_AT, "")
    # Who looks for cases that were trained on tells of an event before the time: where only that is, it is an earlier
    # promotion's. An older condswin told of none.
    long_ago = "" if "untold" in record else at
    facts = {"version": version, "previous": previous, "by": by, "why": why}
    known_by = promotion_known_by(version, previous, record)
    if tag := event_tag(client, name, "promoted", known_by, long_ago=long_ago, **facts):
        client.set_registered_model_tag(name, *tag)
    if not at:
        client.set_model_version_tag(name, version, PROMOTED_AT, _utc())


def promotion_known_by(version: str, previous: str | None, record: Mapping[str, Any]) -> list[Any]:
    """What tells the event of a promotion from those of others, of the same version too."""
    return [version, previous, record.get("decided_at"), record.get("approved_by") or "gate"]


def roll_back(client: MlflowClient, name: str, check: Callable[[str], None], *, leaving: str | None = None) -> Answer:
    """Makes the previous champion champion again, and its predecessor the previous champion.

    Done twice, it goes back once: a champion that a roll-back made is left only where `leaving` names it. An
    interrupted roll-back is completed by running it again. The version rolled back from is tagged and not promoted
    again while it has the tag.

    Args:
        client: Connected.
        name: Registered model.
        check: Raises if a version cannot serve; called before anything changes.
        leaving: The champion to roll back from; the one that was promoted last if not given.

    Raises:
        GateError: There is nothing to roll back to, the champion is another one than the one to leave, is frozen, or
            another program moved it meanwhile.
    """
    if known := _rolled_back_already(client, name, leaving):
        return known
    target, _ = _roll_back_target(client, name)
    check(target)  # takes long: not under the lock
    with promotion_lock(client, name) as write:
        _require_not_frozen(client, name)
        again, champion = _roll_back_target(client, name)
        if again != target:
            raise GateError(f"{name}: the champion moved while version {target} was tried out; nothing was changed")
        if champion is not None:
            note = {"at": _utc(), "to": target, "decided_at": _decided_at(client, name, target)}
            write(client.set_model_version_tag, name, champion, ROLLED_BACK, json.dumps(note, sort_keys=True))
        write(client.set_registered_model_tag, name, LAST_CHAMPION, target)
        before = _predecessor(client, name, target)
        if before is not None:
            write(client.set_registered_model_alias, name, PREVIOUS, before)
        elif aliased(client, name, PREVIOUS) is not None:
            write(client.delete_registered_model_alias, name, PREVIOUS)
        write(client.set_registered_model_alias, name, CHAMPION, target)
        _confirm(client, name, target)
        if tag := _roll_back_event(client, name, champion, target):
            write(client.set_registered_model_tag, name, *tag)
    return Answer(True, target, f"champion is version {target} again")


def _rolled_back_already(client: MlflowClient, name: str, leaving: str | None) -> Answer | None:
    """What to answer if the roll-back that is asked for was done before; its event is told if that is missing.

    Raises:
        GateError: The champion to leave is not champion, and was not rolled back.
    """
    champion = aliased(client, name, CHAMPION)
    if champion is None or champion == leaving:
        return None
    notes = {
        str(entry.version): json.loads(entry.tags[ROLLED_BACK])
        for entry in client.search_model_versions(f"name = '{name}'")
        if ROLLED_BACK in entry.tags
    }
    if leaving is not None and leaving not in notes:
        raise GateError(f"{name}: champion is {_spoken(champion)}, not {_spoken(leaving)}; nothing was changed")
    decided_at = _decided_at(client, name, champion)
    told = [each for each in events(client, name) if (each["event"], each.get("version")) == ("rolled back", champion)]
    # Not of a champion that was promoted anew since: by its decision, as clocks may be of several machines.
    done: dict[str | None, str] = {
        left: str(each["at"])
        for left, each in [*notes.items(), *((event.get("previous"), event) for event in told)]
        if each.get("to", champion) == champion and each.get("decided_at", decided_at) == decided_at
    }
    if leaving is None and not done:
        return None
    for version in notes.keys() & done.keys():
        if tag := _roll_back_event(client, name, version, champion):
            with promotion_lock(client, name) as write:
                write(client.set_registered_model_tag, name, *tag)
    left = leaving or max(done, key=lambda each: done[each])
    why = f"{_spoken(left)} was rolled back" if left else "the one before it was deleted"
    text = f"nothing to do, champion is version {champion} since {why}; `--from {champion}` leaves that, too"
    return Answer(False, champion, text)


def _roll_back_event(client: MlflowClient, name: str, left: str | None, target: str) -> tuple[str, str] | None:
    known_by = [left, target, _decided_at(client, name, left) if left else None]
    facts: dict[str, Any] = {
        "version": target,
        "previous": left,
        "decided_at": _decided_at(client, name, target),
        "by": "",
        "why": "",
    }
    return event_tag(client, name, "rolled back", known_by, **facts)


def _decided_at(client: MlflowClient, name: str, version: str) -> str | None:
    """What tells the last decision on a version from those before."""
    at: str | None = json.loads(client.get_model_version(name, version).tags.get(RECORD, "{}")).get("decided_at")
    return at


def frozen(client: MlflowClient, name: str) -> str | None:
    """Why no alias may move, in words; None if they may."""
    note = client.get_registered_model(name).tags.get(FROZEN)
    if note is None:
        return None
    known = json.loads(note)
    return f"the champion is frozen since {known['at']} by {known['by']}: {known['why']}"


def freeze(client: MlflowClient, name: str, *, by: str, why: str, lift: bool = False) -> Answer:
    """Stops every move of the champion, or allows them again; tells of what an interrupted run did without telling."""
    with promotion_lock(client, name) as write:
        is_frozen, champion = frozen(client, name), aliased(client, name, CHAMPION)
        changed = bool(is_frozen) == lift
        note = {"at": _utc(), "by": by, "why": why}
        if changed and lift:
            write(client.delete_registered_model_tag, name, FROZEN)
        elif changed:
            write(client.set_registered_model_tag, name, FROZEN, json.dumps(note, sort_keys=True))
        elif is_frozen:
            note = json.loads(client.get_registered_model(name).tags[FROZEN])
        told = Counter(event["event"] for event in events(client, name))
        untold = told["frozen"] > told["lifted"] if lift else told["frozen"] <= told["lifted"]
        event, known_by = "lifted" if lift else "frozen", datetime.now(UTC).isoformat()
        if untold and (tag := event_tag(client, name, event, known_by, by=note["by"], why=note["why"])):
            write(client.set_registered_model_tag, name, *tag)
    if not changed:
        return Answer(False, champion, f"nothing to do, {is_frozen or 'the champion is not frozen'}")
    return Answer(True, champion, f"the champion {'moves again' if lift else 'is frozen'}")


def reject(client: MlflowClient, name: str, version: str, *, by: str, why: str) -> Answer:
    """Notes on a version that a person does not want it; it is not promoted while it has the note.

    Raises:
        GateError: It is champion.
    """
    with promotion_lock(client, name) as write:
        champion, tags = aliased(client, name, CHAMPION), client.get_model_version(name, version).tags
        if champion == version:
            raise GateError(f"{name}: version {version} is champion; `condswin rollback` takes it back")
        if REJECTED in tags:
            known = json.loads(tags[REJECTED])
            said = f"was rejected at {known['at']} by {known['by']} ({known['why']})"
            return Answer(False, champion, f"nothing to do, version {version} {said}")
        note = json.dumps({"at": _utc(), "by": by, "why": why}, sort_keys=True)
        write(client.set_model_version_tag, name, version, REJECTED, note)
    return Answer(True, champion, f"version {version} is rejected")


def _require_not_frozen(client: MlflowClient, name: str) -> None:
    if is_frozen := frozen(client, name):
        raise GateError(f"{name}: {is_frozen}; nothing was changed. `condswin freeze --lift` allows moves again")


def _roll_back_target(client: MlflowClient, name: str) -> tuple[str, str | None]:
    """Where a roll-back leads, and the champion."""
    champion, previous = aliased(client, name, CHAMPION), aliased(client, name, PREVIOUS)
    target = previous
    if champion is not None:
        begun = client.get_model_version(name, champion).tags.get(ROLLED_BACK)
        if begun is not None:
            # A roll-back that was interrupted before it moved the alias.
            target = str(json.loads(begun)["to"])
        elif previous == champion:
            # A promotion that was interrupted between its two aliases: the promoted one never was champion.
            target = _predecessor(client, name, champion)
    if target is None or target == champion:
        raise GateError(f"{name}: champion is {_spoken(champion)}, and there is no champion before it to roll back to")
    return target, champion


def _predecessor(client: MlflowClient, name: str, version: str) -> str | None:
    """The champion before a version, by the journal, if that version still exists."""
    before = client.get_model_version(name, version).tags.get(PREVIOUS_CHAMPION)
    return None if before is None or find_version(client, name, before) is None else str(before)


def _confirm(client: MlflowClient, name: str, version: str) -> None:
    now = aliased(client, name, CHAMPION)
    if now != version:
        raise GateError(
            f"{name}: champion was set to version {version}, but is {_spoken(now)}: another program moved it"
        )


def _spoken(version: str | None) -> str:
    return "none" if version is None else f"version {version}"


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
