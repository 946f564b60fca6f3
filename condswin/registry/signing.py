"""Signatures of packages by OpenSSF's `model-signing`: a private key signs the list of all files and their checksums.

The tag with the checksum lies in the registry's database, so whoever can write there could replace a package and its
checksum together. A signature cannot be made without the private key, which only `register` reads. It lies in the
package, in a format that other programs verify too (a Sigstore bundle of an in-toto statement). Nothing of this needs
a network: keys are ours, and no transparency log is asked.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from condswin.errors import BadFileError

if TYPE_CHECKING:
    from model_signing import hashing, verifying

#: The signature in a package.
SIGNATURE = "model.sig"
#: Version tag: SHA-256 of the public key (PEM) whose private one signed. It says who claims to have; nothing trusts it.
SIGNED_BY = "condswin.signed_by"
#: Environment variable: the private key that `register` signs with, a PEM file or its text.
SIGNING_KEY = "CONDSWIN_SIGNING_KEY"
#: Environment variable: public keys, likewise. While it is set, nothing is loaded that none of them signed.
TRUSTED_KEYS = "CONDSWIN_TRUSTED_KEYS"

_PEM = "-----BEGIN"
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\s*", re.DOTALL)
_KIND = "on the curve P-256, P-384 or P-521 as PEM"
# Of a key as PEM; a pipe holds it.
_LONGEST = 4096


def check_key() -> None:
    """Refuses a key to sign with that is none, or not one of those that are trusted here.

    Raises:
        BadFileError: It is such a key.
    """
    own = _own_key()
    if own is not None and own not in _trusted_keys():
        raise BadFileError(
            _place(TRUSTED_KEYS),
            f"{TRUSTED_KEYS} lacks the public key of {SIGNING_KEY}, so nothing that is signed here is trusted; add it",
        )


def sign(package: Path) -> str:
    """Signs all files of a package, if a key is given; the signature becomes one of them.

    Returns:
        For the tag `SIGNED_BY`; empty without a key.

    Raises:
        BadFileError: The key is none.
    """
    own = _own_key()
    if own is None:
        return ""
    from model_signing import signing

    with _as_path(_read(SIGNING_KEY) or b"") as key:
        signer = signing.Config().use_elliptic_key_signer(private_key=key)
    signer.set_hashing_config(_hashing(package)).sign(package, package / SIGNATURE)
    return hashlib.sha256(own).hexdigest()


def objection(package: Path) -> str | None:
    """Why the files of a package must not be used, in words; None if they may, or if no key is given to tell.

    Raises:
        BadFileError: A key is none.
    """
    keys = _trusted_keys()
    if not keys:
        return None
    if not (package / SIGNATURE).is_file():
        return f"it is not signed (no {SIGNATURE}), and {TRUSTED_KEYS} asks for a signature"
    return None if signer(package) else f"none of the {len(keys)} trusted keys signed these files"


def signer(package: Path) -> str | None:
    """The trusted key that signed the files of a package, as `SIGNED_BY` says it; None if none of them did.

    Raises:
        BadFileError: A key is none.
    """
    for key in _trusted_keys():
        try:
            _verifier(key).set_hashing_config(_hashing(package)).verify(package, package / SIGNATURE)
        except (OSError, MemoryError):  # of files that could not be read, nobody may think that no key signed them
            raise
        except Exception:  # whatever the library makes of what is no signature, or another key's, or of other files
            continue
        return hashlib.sha256(key).hexdigest()
    return None


def checks_signatures() -> bool:
    """Whether a key is given to check signatures with."""
    return bool(_trusted_keys())


def _hashing(package: Path) -> "hashing.Config":
    """All files count, those that git ignores as well."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[package / SIGNATURE], ignore_git_paths=False)


def _verifier(key: bytes) -> "verifying.Config":
    from model_signing import verifying

    with _as_path(key) as path:
        return verifying.Config().use_elliptic_key_verifier(public_key=path)


def _own_key() -> bytes | None:
    """The public part of the key that signs here, as PEM."""
    text = _read(SIGNING_KEY)
    if text is None:
        return None
    try:
        if len(text) > _LONGEST:
            raise ValueError("longer than any key")
        public = _pem(load_pem_private_key(text, password=None).public_key())
        _verifier(public)
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm):  # the last but one for keys of other kinds
        reason = f"{SIGNING_KEY} wants a private key {_KIND} without a password"
        raise BadFileError(_place(SIGNING_KEY), reason) from None
    return public


def _trusted_keys() -> list[bytes]:
    """Those that are named; else the one of whoever signs here."""
    text = _read(TRUSTED_KEYS)
    if text is None:
        own = _own_key()
        return [] if own is None else [own]
    found = _PUBLIC.findall(text)
    try:
        keys = [_pem(load_pem_public_key(each)) for each in found]
        for key in keys:
            _verifier(key)
    except (ValueError, AttributeError, UnsupportedAlgorithm):
        keys = []
    if not keys:
        raise BadFileError(_place(TRUSTED_KEYS), f"{TRUSTED_KEYS} wants public keys {_KIND}, and nothing else")
    return keys


def _pem(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@contextmanager
def _as_path(key: bytes) -> Iterator[str]:
    """Where the library, which takes paths alone, reads a key that came from a variable and shall lie on no disk."""
    reading, writing = os.pipe()
    try:
        os.write(writing, key)
        os.close(writing)
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)


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
