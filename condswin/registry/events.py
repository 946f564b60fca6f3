"""Events of a registered model: each is a tag of its own, and a webhook is told of it.

A tag is written with the move that it tells of, and says whether the webhook is still to be told. So an event outlives
a webhook that is away, and the run that made it; the next one sends it. It may be sent twice, never under two keys.
"""

import hashlib
import hmac
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests import RequestException  # type: ignore[import-untyped]
from sqlalchemy.exc import SQLAlchemyError

from condswin.errors import ConfigError, GateError
from condswin.files import fingerprint
from condswin.webhooks import send

#: Tags of the registered model that tell what was done to it, by the event's key.
EVENT = "condswin.event."
#: Environment variables: where events are sent, and the secret that signs them.
WEBHOOK_URL, WEBHOOK_KEY = "CONDSWIN_WEBHOOK_URL", "CONDSWIN_WEBHOOK_KEY"
#: Headers of a delivery: the event's key, which is the same whenever it is sent again, and the body's HMAC-SHA256.
DELIVERY, SIGNATURE = "X-Condswin-Delivery", "X-Condswin-Signature"
#: Seconds to wait before another attempt, and for an answer.
PAUSES = (0.5, 2.0)
PATIENCE = 5.0

#: Characters for who decided and why, as JSON has them: databases keep 5000 of a tag, with all that an event tells.
LONGEST_WORDS = 4000

_PENDING = "pending"
_FOR_US = (_PENDING, "delivered_at", "refused")


def check_words(by: str, why: str) -> None:
    """Refuses who decided and why where one of them is empty, or where no event could be told of both.

    Raises:
        GateError: So it is.
    """
    for what, text in (("--by", by), ("--why", why)):
        if not text.strip():
            raise GateError(f"{what}: says nothing; it is kept with the decision")
    if (length := len(json.dumps([by, why]))) > LONGEST_WORDS:
        raise GateError(
            f"--by and --why: {length} characters as MLflow keeps them, of at most {LONGEST_WORDS}; say less"
        )


def event_key(name: str, event: str, known_by: Any) -> str:
    """Tells an event from all others; see `event_tag`."""
    return fingerprint([name, event, known_by])[:32]


def event_tag(
    client: MlflowClient, name: str, event: str, known_by: Any, *, long_ago: str = "", **facts: Any
) -> tuple[str, str] | None:
    """Key and value of the tag that tells of an event; None if it is there already.

    Args:
        client: Connected.
        name: The registered model.
        event: `promoted`, `rolled back`, `frozen`, `lifted`.
        known_by: JSON-able; equal for an event that is told once more, after the first attempt was interrupted.
        long_ago: When it happened, if no tag was made of it then: nobody is told of it any more.
        facts: `version`, `previous`, `by`, `why`: no names of cases.
    """
    key = event_key(name, event, known_by)
    if EVENT + key in client.get_registered_model(name).tags:
        return None
    at = long_ago or datetime.now(UTC).isoformat(timespec="microseconds")
    told = {"key": key, "event": event, "name": name, "at": at, **facts}
    if "version" in facts:
        told["uri"] = f"models:/{name}/{facts['version']}"
    wanted = {_PENDING: True} if _target() and not long_ago else {}
    return EVENT + key, json.dumps({**told, **wanted}, sort_keys=True)


def events(client: MlflowClient, name: str) -> list[dict[str, Any]]:
    """What was told of a registered model, oldest first; tags of such a name that are no events are passed over."""
    tags = client.get_registered_model(name).tags
    found = [_event(key.removeprefix(EVENT), text) for key, text in tags.items() if key.startswith(EVENT)]
    return sorted((event for event in found if event), key=lambda event: str(event["at"]))


@contextmanager
def told(client: MlflowClient, name: str) -> Iterator[None]:
    """Runs the block, then tells the webhook of what it did and what earlier runs could not tell.

    A webhook that does not take an event fails nothing: it is kept, and a line says so.

    Raises:
        ConfigError: The webhook's key is missing; the block was not run.
    """
    _target()
    yield
    try:
        problem = deliver(client, name)
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        problem = f"{name}: MLflow does not say which events are to be sent ({type(error).__name__})"
    if problem:
        print(problem, file=sys.stderr)


def deliver(client: MlflowClient, name: str) -> str | None:
    """Sends what is pending, in the order in which it happened, up to the first event that gets no final answer.

    One that is refused (4xx) is noted as such, stays pending, and keeps no later one waiting.

    Returns:
        What kept it from sending all, in words.
    """
    target = _target()
    if target is None:
        return None
    url, secret = target
    untold = []
    for event in [event for event in events(client, name) if event.get(_PENDING)]:
        body = body_of(event)
        headers = {DELIVERY: event["key"], SIGNATURE: signature_of(body, secret)}
        objection, refused = send(url, body, headers, timeout=PATIENCE, pauses=PAUSES)
        if objection:
            untold.append(f"{event['event']!r} ({objection})")
        if objection and not refused:
            break
        changed = {key: value for key, value in event.items() if key not in _FOR_US}
        if refused:
            changed |= {_PENDING: True, "refused": objection}
        else:
            changed["delivered_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        if changed != event:
            client.set_registered_model_tag(name, EVENT + event["key"], json.dumps(changed, sort_keys=True))
    if not untold:
        return None
    return (
        f"{name}: {_place(url)} was not told of {', '.join(untold)}; it is kept, and the next command that may move "
        "the champion sends it"
    )


def body_of(event: Mapping[str, Any]) -> bytes:
    """What is sent of an event."""
    return json.dumps({key: value for key, value in event.items() if key not in _FOR_US}, sort_keys=True).encode()


def signature_of(body: bytes, secret: str) -> str:
    """`sha256=` and the hex HMAC-SHA256 of a body."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _event(key: str, text: str) -> dict[str, Any] | None:
    """The event in a tag; None if whoever wrote the tag wrote something else."""
    try:
        event = json.loads(text)
        datetime.fromisoformat(event["at"])
        return event if event["key"] == key and isinstance(event["event"], str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _target() -> tuple[str, str] | None:
    url, secret = (os.environ.get(variable, "").strip() for variable in (WEBHOOK_URL, WEBHOOK_KEY))
    if not url:
        return None
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"{WEBHOOK_URL}: no http:// or https:// address")
    if not secret:
        raise ConfigError(f"{WEBHOOK_KEY}: missing; {WEBHOOK_URL} is set, and what is sent there must be signed")
    return url, secret


def _place(url: str) -> str:
    """A webhook's server; the rest of its address may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
