"""The champion of a registered model: who it is, and moving it under a lock that holds across machines.

MLflow's aliases are last-writer-wins, and deleting a version silently deletes its alias. So the champion moves only
under `promotion_lock`, each move is journaled in tags, and a champion that vanished is told from one that never was.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

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


def aliased(client: MlflowClient, name: str, alias: str) -> str | None:
    """Version that an alias points at, None if there is no such alias or model."""
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in _MISSING:  # 3.17 says "invalid parameter" for an alias that is not there
            return None
        raise


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
    known_by = [version, previous, record.get("decided_at"), by]
    # The event comes before the time: where only that is, of this decision, an older condswin promoted the version.
    at = tags.get(PROMOTED_AT, "")
    long_ago = at if at >= record.get("decided_at", "") else ""
    facts = {"version": version, "previous": previous, "by": by, "why": why}
    if tag := event_tag(client, name, "promoted", known_by, long_ago=long_ago, **facts):
        client.set_registered_model_tag(name, *tag)
    if not at:
        client.set_model_version_tag(name, version, PROMOTED_AT, _utc())


def roll_back(client: MlflowClient, name: str, check: Callable[[str], None]) -> tuple[str | None, str]:
    """Makes the previous champion champion again, and its predecessor the previous champion.

    An interrupted roll-back is completed by running it again. The version rolled back from is tagged and not promoted
    again while it has the tag.

    Args:
        client: Connected.
        name: Registered model.
        check: Raises if a version cannot serve; called before anything changes.

    Returns:
        The version rolled back from (None if it was deleted) and the champion now.

    Raises:
        GateError: There is nothing to roll back to, the champion is frozen, or another program moved it meanwhile.
    """
    target, _ = _roll_back_target(client, name)
    check(target)  # takes long: not under the lock
    with promotion_lock(client, name) as write:
        _require_not_frozen(client, name)
        again, champion = _roll_back_target(client, name)
        if again != target:
            raise GateError(f"{name}: the champion moved while version {target} was tried out; nothing was changed")
        if champion is not None:
            note = json.dumps({"at": _utc(), "to": target}, sort_keys=True)
            write(client.set_model_version_tag, name, champion, ROLLED_BACK, note)
        write(client.set_registered_model_tag, name, LAST_CHAMPION, target)
        before = _predecessor(client, name, target)
        if before is not None:
            write(client.set_registered_model_alias, name, PREVIOUS, before)
        elif aliased(client, name, PREVIOUS) is not None:
            write(client.delete_registered_model_alias, name, PREVIOUS)
        write(client.set_registered_model_alias, name, CHAMPION, target)
        _confirm(client, name, target)
        record = json.loads(client.get_model_version(name, champion).tags.get(RECORD, "{}")) if champion else {}
        known_by = [champion, target, record.get("decided_at")]
        if tag := event_tag(client, name, "rolled back", known_by, version=target, previous=champion, by="", why=""):
            write(client.set_registered_model_tag, name, *tag)
    return champion, target


def frozen(client: MlflowClient, name: str) -> str | None:
    """Why no alias may move, in words; None if they may."""
    note = client.get_registered_model(name).tags.get(FROZEN)
    if note is None:
        return None
    known = json.loads(note)
    return f"the champion is frozen since {known['at']} by {known['by']}: {known['why']}"


def freeze(client: MlflowClient, name: str, *, by: str, why: str, lift: bool = False) -> None:
    """Stops every move of the champion, or allows them again.

    Raises:
        GateError: It is as it should be already.
    """
    with promotion_lock(client, name) as write:
        is_frozen = frozen(client, name)
        if bool(is_frozen) != lift:
            raise GateError(f"{name}: {is_frozen or 'is not frozen'}; nothing to do")
        note = {"at": _utc(), "by": by, "why": why}
        if lift:
            write(client.delete_registered_model_tag, name, FROZEN)
        else:
            write(client.set_registered_model_tag, name, FROZEN, json.dumps(note, sort_keys=True))
        known_by = datetime.now(UTC).isoformat()
        if tag := event_tag(client, name, "lifted" if lift else "frozen", known_by, by=by, why=why):
            write(client.set_registered_model_tag, name, *tag)


def reject(client: MlflowClient, name: str, version: str, *, by: str, why: str) -> None:
    """Notes on a version that a person does not want it; it is not promoted while it has the note.

    Raises:
        GateError: It is champion.
    """
    with promotion_lock(client, name) as write:
        if aliased(client, name, CHAMPION) == version:
            raise GateError(f"{name}: version {version} is champion; `condswin rollback` takes it back")
        note = json.dumps({"at": _utc(), "by": by, "why": why}, sort_keys=True)
        write(client.set_model_version_tag, name, version, REJECTED, note)


def history(client: MlflowClient, name: str) -> list[dict[str, str]]:
    """What happened to a registered model, oldest first: `at`, `version`, `event`, `by`, `why`.

    Of decisions on a version that did not make it champion, the last one is known.
    """
    found = [_told(event) for event in events(client, name)]
    known = {(event["version"], event["event"]) for event in found}
    champion = aliased(client, name, CHAMPION)
    for entry in client.search_model_versions(f"name = '{name}'"):
        tags = {key: str(value) for key, value in entry.tags.items()}
        version = str(entry.version)
        registered = datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
        found.append({"at": registered, "version": version, "event": "registered", "by": "", "why": ""})
        record = json.loads(tags.get(RECORD, "{}"))
        if "decided_at" in record and not record["promoted"]:
            why = "; ".join(record["reasons"])
            decided, outcome = record["decided_at"], record["outcome"]
            found.append({"at": decided, "version": version, "event": outcome, "by": "gate", "why": why})
        if PROMOTED_AT in tags and (version, "promoted") not in known:  # interrupted, or by an older condswin
            found.append({"at": tags[PROMOTED_AT], "version": version, "event": "promoted", "by": "gate", "why": ""})
        if ROLLED_BACK in tags and version != champion and (version, "rolled back") not in known:
            note = json.loads(tags[ROLLED_BACK])
            why = f"to version {note['to']}"
            found.append({"at": note["at"], "version": version, "event": "rolled back", "by": "", "why": why})
        if REJECTED in tags:
            found.append({"version": version, "event": "rejected", **json.loads(tags[REJECTED])})
    return sorted(found, key=lambda event: (event["at"], event["event"] != "registered"))


def _told(event: Mapping[str, Any]) -> dict[str, str]:
    """An event as `history` gives it: of a roll-back, the version that is no longer champion."""
    version, previous, why = event.get("version"), event.get("previous"), str(event.get("why", ""))
    if event["event"] == "promoted":
        why = "; ".join([f"after version {previous}" if previous else "the first", *([why] if why else [])])
    if event["event"] == "rolled back":
        version, why = previous, f"to version {version}"
    at = datetime.fromisoformat(event["at"]).isoformat(timespec="seconds")
    return {"at": at, "version": version or "", "event": event["event"], "by": event.get("by", ""), "why": why}


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
