"""A person's yes to a version that the gate let through and held.

On MLflow's page it is the version tag `condswin.approval`: `approved by NAME`, or `approved by NAME: REASON`.
"""

import json
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient

from condswin.config.root import Config
from condswin.errors import GateError
from condswin.registry.aliases import (
    APPROVAL,
    PROMOTED_AT,
    RECORD,
    REJECTED,
    ROLLED_BACK,
    journal,
    move_champion,
    promotion_known_by,
)
from condswin.registry.events import check_words, event_key, events
from condswin.registry.package import ModelUnavailableError, load_registered

_YES = "approved by "


def approve_held(
    client: MlflowClient, config: Config, name: str, version: str, tags: Mapping[str, str], *, by: str, why: str
) -> dict[str, Any]:
    """Makes a version champion that is held; also one whose approval was interrupted before the champion moved.

    Args:
        client: Connected.
        config: Names the registry.
        name: The registered model.
        version: The version.
        tags: The version's.
        by: Who approves it.
        why: Why; both are kept with the decision.

    Returns:
        The record of the promotion.

    Raises:
        GateError: It is not held, cannot be loaded, or another champion was made since it was judged; or one of the
            words is empty, or they are too long to be kept.
    """
    check_words(by, why)
    record = decision_in(client, name, version, tags)
    if record.get("outcome") != "held" or {REJECTED, ROLLED_BACK} & set(tags):
        raise GateError(
            f"{name}: version {version} is not held for approval ({record.get('outcome', 'never judged')}); "
            "`condswin history` tells what happened to it"
        )
    if "untold" not in record:
        raise GateError(
            f"{name}: version {version} was judged by an older condswin, which did not look for test cases that it was "
            "trained on; promote again, then approve"
        )
    try:
        load_registered(f"models:/{name}/{version}", config)
    except ModelUnavailableError as error:
        raise GateError(f"cannot approve, nothing was changed: {error}") from error
    expected = record["champion"]
    record |= {"promoted": True, "outcome": "promoted", "champion": version, "previous": expected}
    record |= {"approved_by": by, "why": why}
    move_champion(client, name, version, expected=expected, record=record)
    return record


def decision_in(client: MlflowClient, name: str, version: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The last decision on a version: of an approval that moved no champion, the decision to hold that it approved."""
    record: dict[str, Any] = json.loads(tags.get(RECORD, "{}"))
    if "approved_by" in record and not _came_about(client, name, version, tags, record):
        record |= {"promoted": False, "outcome": "held", "champion": record["previous"]}
        del record["approved_by"], record["why"]
    return record


def _came_about(
    client: MlflowClient, name: str, version: str, tags: Mapping[str, str], record: Mapping[str, Any]
) -> bool:
    """Whether a record's promotion happened; clocks do not tell, as decision and event may be of two machines."""
    told = [each for each in events(client, name) if (each["event"], each.get("version")) == ("promoted", version)]
    if not told:  # an older condswin told of none
        return PROMOTED_AT in tags
    key = event_key(name, "promoted", promotion_known_by(version, record["previous"], record))
    return any(each["key"] == key for each in told)


def approval_in(tags: Mapping[str, str]) -> tuple[str, str] | None:
    """Who approved a version on MLflow's page, and why; None if nobody did.

    Raises:
        GateError: The tag says something else.
    """
    said = tags.get(APPROVAL, "").strip()
    if not said:
        return None
    by, _, why = said[len(_YES) :].partition(":")
    if said[: len(_YES)].lower() != _YES or not by.strip():
        raise GateError(f"tag {APPROVAL!r}: says {said[:80]!r}, not `approved by NAME` or `approved by NAME: REASON`")
    return by.strip(), why.strip() or "approved in MLflow"


def complete(client: MlflowClient, name: str, version: str, record: Mapping[str, Any]) -> bool:
    """Completes the journal of a champion whose promotion was interrupted; whether a promotion made it champion."""
    if not record.get("promoted"):
        return False
    journal(client, name, version, previous=record["previous"], record=record)
    return True
