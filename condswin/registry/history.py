"""What happened to a registered model, from its events and the tags of its versions."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mlflow import MlflowClient

from condswin.registry.aliases import CHAMPION, PROMOTED_AT, REJECTED, ROLLED_BACK, aliased
from condswin.registry.approval import decision_in
from condswin.registry.events import events


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
        record = decision_in(client, name, version, tags)
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
