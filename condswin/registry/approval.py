"""A person's yes to a version that the gate let through and held.

On MLflow's page it is the version tag `condswin.approval`: `approved by NAME`, or `approved by NAME: REASON`.
"""

import json
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient

from condswin.config.root import Config
from condswin.errors import GateError
from condswin.registry.aliases import APPROVAL, RECORD, REJECTED, ROLLED_BACK, move_champion
from condswin.registry.package import ModelUnavailableError, load_registered

_YES = "approved by "


def approve_held(
    client: MlflowClient, config: Config, name: str, version: str, tags: Mapping[str, str], *, by: str, why: str
) -> dict[str, Any]:
    """Makes a version champion that is held.

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
        GateError: It is not held, cannot be loaded, or another champion was made since it was judged.
    """
    record: dict[str, Any] = json.loads(tags.get(RECORD, "{}"))
    if record.get("outcome") != "held" or {REJECTED, ROLLED_BACK} & set(tags):
        raise GateError(
            f"{name}: version {version} is not held for approval ({record.get('outcome', 'never judged')}); "
            "`condswin history` tells what happened to it"
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
