"""Keys that tell patients apart without naming them."""

import hashlib
import hmac
import os

#: Environment variable with the secret of `patient_key`.
PATIENT_KEY = "CONDSWIN_PATIENT_KEY"
#: Where a patient's identifier stands if no file has one.
BY_NAME = "file name"


def has_secret() -> bool:
    """Whether the environment has a secret for `patient_key`."""
    return bool(os.environ.get(PATIENT_KEY))


def patient_key(identifier: str) -> str:
    """The start of a keyed hash (HMAC-SHA256) of a patient's identifier.

    The secret is the environment's CONDSWIN_PATIENT_KEY, any text. Without it a fixed one is used, with which whoever
    knows or guesses an identifier can tell its key; runs agree on patients if they have the same secret.
    """
    secret = os.environ.get(PATIENT_KEY) or "condswin"
    return hmac.new(
        secret.encode(), f"patient {identifier}".encode(errors="surrogateescape"), hashlib.sha256
    ).hexdigest()[:16]
