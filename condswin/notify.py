"""A message to a Slack-compatible webhook. It is news, and must not be what a run fails by."""

import json
from urllib.parse import urlsplit

from condswin.webhooks import send

#: Environment variable with the webhook's address, which is a secret: whoever has it can post.
WEBHOOK = "CONDSWIN_NOTIFY_URL"
#: Seconds for an answer, and before each further try.
TIMEOUT = 10.0
PAUSES = (2.0, 8.0)


def message(pipeline: str, state: str, task: str, run: str, ui: str) -> str:
    """How a run ended, in Slack's notation.

    It names no file and holds no error's text: both may tell of patients, and Slack is elsewhere.

    Args:
        pipeline: Its name.
        state: What the backend says of it (`SUCCEEDED`, `FAILED`, `CANCELLED`). Of nested tasks some versions go on to
            say `RUNNING` after they ended (kubeflow/pipelines#11979).
        task: The task that the state is of.
        run: Identifier.
        ui: Address of Kubeflow's user interface, for a link; empty for none.
    """
    words = {"SUCCEEDED": "succeeded", "COMPLETE": "succeeded", "FAILED": "failed", "CANCELLED": "was cancelled"}
    ended = words.get(state, f"ended; the backend calls {task} {state or 'nothing'}")
    where = f"<{_escaped(ui.rstrip('/'))}/#/runs/details/{_escaped(run)}|{_escaped(run)}>" if ui else _escaped(run)
    return f"condswin {_escaped(pipeline)} {_escaped(ended)}: {where}"


def post(url: str, text: str, *, timeout: float = TIMEOUT, pauses: tuple[float, ...] = PAUSES) -> str:
    """Posts a text; never raises.

    Args:
        url: The webhook's address.
        text: In Slack's notation.
        timeout: Seconds to wait for an answer.
        pauses: Seconds before each further try, after a server's error or none of its answers.

    Returns:
        Empty if it was taken, else why not, without the address.
    """
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("https", "http") and parts.hostname and (parts.port or True)
    except ValueError:  # of brackets and ports
        named = False
    if not named:
        return f"{WEBHOOK} is no address of a webhook"
    return send(url, json.dumps({"text": text}).encode(), {}, timeout=timeout, pauses=pauses)[0]


def _escaped(text: str) -> str:
    """As Slack asks for it; `|` and `>` would end a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "%7C")
