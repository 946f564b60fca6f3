"""Signatures of packages: Ed25519 over the name of the model and the checksum of its files.

The tag with the checksum lies in the registry's database, so whoever can write there could replace a package and its
checksum together. A signature cannot be made without the private key, which only `register` reads.
"""

import base64
import binascii
import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from condswin.errors import BadFileError

#: Version tag: signature of the package, base64.
SIGNATURE = "condswin.signature"
#: Environment variable: the private key that `register` signs with, a PEM file or its text.
SIGNING_KEY = "CONDSWIN_SIGNING_KEY"
#: Environment variable: public keys, likewise. While it is set, nothing is loaded that none of them signed.
TRUSTED_KEYS = "CONDSWIN_TRUSTED_KEYS"

_PEM = "-----BEGIN"
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\s*", re.DOTALL)


def sign(name: str, sha256: str) -> str | None:
    """Signature of a package, None where no key is given.

    Args:
        name: The registered model.
        sha256: `package_sha256` of the files.

    Raises:
        BadFileError: The key is none, or not one of those that are trusted here.
    """
    key = _private_key()
    if key is None:
        return None
    made = base64.b64encode(key.sign(_message(name, sha256))).decode()
    if objection(name, sha256, made):
        raise BadFileError(
            _place(TRUSTED_KEYS),
            f"{TRUSTED_KEYS} lacks the public key of {SIGNING_KEY}, so nothing that is signed here is trusted; add it",
        )
    return made


def objection(name: str, sha256: str, signature: str | None) -> str | None:
    """Why a package must not be used, in words; None if it may, or if no key is given to tell.

    Raises:
        BadFileError: A key is none.
    """
    keys = _trusted_keys()
    if not keys:
        return None
    if signature is None:
        return f"it is not signed (no tag {SIGNATURE}), and {TRUSTED_KEYS} asks for a signature"
    try:
        made = base64.b64decode(signature, validate=True)
    except binascii.Error:
        made = b""
    for key in keys:
        try:
            key.verify(made, _message(name, sha256))
        except InvalidSignature:
            continue
        return None
    return f"none of the {len(keys)} trusted keys signed it"


def checks_signatures() -> bool:
    """Whether a key is given to check signatures with."""
    return bool(_trusted_keys())


def _message(name: str, sha256: str) -> bytes:
    return f"condswin package\n{name}\n{sha256}\n".encode()


def _private_key() -> Ed25519PrivateKey | None:
    text = _read(SIGNING_KEY)
    if text is None:
        return None
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadFileError(_place(SIGNING_KEY), f"{SIGNING_KEY} wants a private Ed25519 key as PEM without a password")
    return key


def _trusted_keys() -> list[Ed25519PublicKey]:
    """Those that are named; else the one of whoever signs here."""
    text = _read(TRUSTED_KEYS)
    if text is None:
        own = _private_key()
        return [] if own is None else [own.public_key()]
    texts = _PUBLIC.findall(text)
    keys = [key for key in map(_public_key, texts) if key]
    if not keys or len(keys) != len(texts):
        raise BadFileError(_place(TRUSTED_KEYS), f"{TRUSTED_KEYS} wants public Ed25519 keys as PEM, and nothing else")
    return keys


def _public_key(text: bytes) -> Ed25519PublicKey | None:
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PublicKey) else None


def _read(variable: str) -> bytes | None:
    """The keys that a variable names or, as where a Secret of Kubernetes is one, holds; None where it is not set."""
    given = os.environ.get(variable, "").strip()
    if not given or given.startswith(_PEM):
        return given.encode() or None
    try:
        return Path(given).read_bytes()
    except OSError as error:
        raise BadFileError(given, f"{variable} names it, and it cannot be read ({error.strerror})") from None


def _place(variable: str) -> str:
    """Where a variable's keys are, for messages: a key itself is none of their business."""
    given = os.environ[variable].strip()
    return variable if given.startswith(_PEM) else given
