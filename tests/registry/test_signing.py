import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from condswin.errors import BadFileError, GateError
from condswin.registry.package import (
    PACKAGE,
    ModelAlteredError,
    load_registered,
    package_sha256,
    verified_package,
)
from condswin.registry.signing import SIGNATURE, SIGNING_KEY, TRUSTED_KEYS, objection, sign
from condswin.serving import serve
from condswin.steps.promote import rollback
from tests.registry.toy import NAME, World

pytest_plugins = ["tests.registry.fixtures"]


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A pair of keys, of which the private one signs."""
    pair = key_pair(tmp_path, "ours")
    monkeypatch.delenv(TRUSTED_KEYS, raising=False)
    monkeypatch.setenv(SIGNING_KEY, str(pair[0]))
    return pair


def test_a_signature_is_of_one_package_of_one_model(
    ours: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sign("a", "f" * 64)
    assert objection("a", "f" * 64, made) is None  # whoever signs trusts the own key
    monkeypatch.delenv(SIGNING_KEY)
    assert sign("a", "f" * 64) is None
    assert objection("a", "0" * 64, None) is None  # no key, no claim
    _, others = key_pair(tmp_path, "others")
    monkeypatch.setenv(TRUSTED_KEYS, str(others))
    assert objection("a", "f" * 64, made) == "none of the 1 trusted keys signed it"
    others.write_bytes(others.read_bytes() + ours[1].read_bytes())  # a key that comes and one that goes
    assert objection("a", "f" * 64, made) is None
    for name, digest in (("b", "f" * 64), ("a", "e" * 64)):
        assert "none of the 2 trusted keys" in str(objection(name, digest, made))
    assert "not signed" in str(objection("a", "f" * 64, None))
    assert "none of the 2" in str(objection("a", "f" * 64, "no base64!"))


def test_keys_that_are_none_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = generate_private_key(SECP256R1())
    curve = tmp_path / "curve.pem"
    curve.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for path in (curve, tmp_path / "absent.pem", tmp_path):
        monkeypatch.setenv(SIGNING_KEY, str(path))
        with pytest.raises(BadFileError, match=SIGNING_KEY):
            sign("a", "f" * 64)
    monkeypatch.delenv(SIGNING_KEY)
    public = tmp_path / "curve.pub"
    public.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for path in (curve, public):
        monkeypatch.setenv(TRUSTED_KEYS, str(path))
        with pytest.raises(BadFileError, match=TRUSTED_KEYS):
            objection("a", "f" * 64, "")


def test_nothing_unsigned_is_loaded_promoted_or_taken_back(
    ours: tuple[Path, Path], world: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who may write to the database and to the store makes package and checksum fit."""
    for bias in (0.5, 0.9):
        assert world.promote(world.register(bias))[0]
    monkeypatch.delenv(SIGNING_KEY)
    monkeypatch.setenv(TRUSTED_KEYS, str(ours[1]))
    load_registered(f"models:/{NAME}@champion", world.config)
    kept = world.package_of("1")
    with (kept / "serving.py").open("a") as file:
        file.write("\n")
    world.client.set_model_version_tag(NAME, "1", PACKAGE, package_sha256(kept))
    for load in (load_registered, lambda uri, config: verified_package(uri, config).__enter__()):
        with pytest.raises(ModelAlteredError, match="none of the 1 trusted keys signed it"):
            load(f"models:/{NAME}/1", world.config)
    with pytest.raises(ModelAlteredError, match="trusted keys"):
        serve(world.config, f"models:/{NAME}/1")
    with pytest.raises(GateError, match="none of the 1 trusted keys signed it"):
        rollback(world.config, "reconstruction")
    world.client.delete_model_version_tag(NAME, "2", SIGNATURE)
    with pytest.raises(ModelAlteredError, match="it is not signed"):
        load_registered(f"models:/{NAME}@champion", world.config)
    monkeypatch.delenv(TRUSTED_KEYS)
    load_registered(f"models:/{NAME}@champion", world.config)


def test_a_byte_of_card_or_picture_that_flips_is_refused(world: World) -> None:
    world.register(0.5)
    kept = world.package_of("1")
    card = kept / "README.md"
    whole = card.read_bytes()
    assert b"# reconstruction: swin" in whole
    card.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    with pytest.raises(ModelAlteredError, match="not those that were registered"):
        load_registered(f"models:/{NAME}/1", world.config)
    card.write_bytes(whole)
    load_registered(f"models:/{NAME}/1", world.config)
    shutil.copyfile(card, kept / "more.md")
    with pytest.raises(ModelAlteredError, match="not those that were registered"):
        load_registered(f"models:/{NAME}/1", world.config)


def test_whoever_gets_a_key_registers_again_and_signs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.register(0.5)
    monkeypatch.setenv(SIGNING_KEY, str(key_pair(tmp_path, "ours")[0]))
    for _ in range(2):
        world.register(0.5)
    assert world.aliases() == {"challenger": "2"}
    assert SIGNATURE in world.tags("2")
    assert SIGNATURE not in world.tags("1")


def test_keys_may_stand_in_the_variables_themselves_and_are_told_to_nobody(
    ours: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIGNING_KEY, ours[0].read_text())
    monkeypatch.setenv(TRUSTED_KEYS, key_pair(tmp_path, "others")[1].read_text() + ours[1].read_text())
    made = sign("a", "f" * 64)
    assert made
    assert objection("a", "f" * 64, made) is None
    body = ours[0].read_text().splitlines()[1]
    monkeypatch.setenv(SIGNING_KEY, f"-----BEGIN PRIVATE KEY-----\n{body[:20]}\n-----END PRIVATE KEY-----")
    with pytest.raises(BadFileError, match=f"^{SIGNING_KEY}: {SIGNING_KEY} wants a private") as caught:
        sign("a", "f" * 64)
    assert body[:20] not in str(caught.value)


def test_whoever_signs_must_be_trusted_there(
    ours: tuple[Path, Path], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each run would register anew what the run before registered."""
    monkeypatch.setenv(TRUSTED_KEYS, str(key_pair(tmp_path, "others")[1]))
    with pytest.raises(BadFileError, match=f"others.pub: {TRUSTED_KEYS} lacks the public key of {SIGNING_KEY}"):
        world.register(0.5)
    assert world.client.search_registered_models() == []
