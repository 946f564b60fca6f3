"""Posts to webhooks: tried again where that may help, never to somebody who was not named; who may be sent a secret."""

import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import requests  # type: ignore[import-untyped]


def send(
    url: str, body: bytes, headers: Mapping[str, str], *, timeout: float, pauses: tuple[float, ...]
) -> tuple[str, bool]:
    """Posts JSON.

    Args:
        url: `http://` or `https://`.
        body: What is sent.
        headers: Beside its type.
        timeout: Seconds for a connection, and for an answer.
        pauses: Seconds before each further try, after a server's error or none of its answers.

    Returns:
        Why it was not taken, empty if it was, without the address; and whether it was refused for good.
    """
    reason = ""
    for pause in (*pauses, None):
        try:
            # A redirect would carry what is sent elsewhere.
            with requests.post(
                url,
                data=body,
                headers={"Content-Type": "application/json", **headers},
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            ) as answer:
                status = answer.status_code  # the body may never end, and says nothing that is asked for
        except requests.Timeout:
            reason = "no answer in time"
        except requests.RequestException as error:
            reason = f"no answer ({type(error).__name__})"
        else:
            if status < 300:
                return "", False
            reason = f"the webhook answered {status}"
            if status < 500 and status not in (408, 429):
                return reason, status >= 400
        if pause is not None:
            time.sleep(pause)
    return reason, False


def stays_near(url: str) -> bool:
    """Whether what is sent to an address is read on its way by none but this machine and the own cluster."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return (
        parts.scheme == "https"
        or host in ("localhost", "127.0.0.1", "::1")
        or host.endswith((".svc", ".svc.cluster.local"))
    )
