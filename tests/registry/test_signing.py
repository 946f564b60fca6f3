import base64
import hashlib
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from condswin.errors import BadFileError, GateError
from condswin.registry.package import (
    PACKAGE,
    ModelAlteredError,
    load_registered,
    package_sha256,
    verified_package,
)
from condswin.registry.signing import SIGNATURE, SIGNED_BY, SIGNING_KEY, TRUSTED_KEYS, check_key, objection, sign
from condswin.serving import serve
from condswin.steps.lineage import lineage
from condswin.steps.promote import rollback
from tests.registry.toy import NAME, World

pytest_plugins = ["tests.registry.fixtures"]


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    key = generate_private_key(SECP256R1())
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


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder of files of which git would ignore one."""
    folder = tmp_path / "package"
    (folder / "code").mkdir(parents=True)
    for name in ("MLmodel", "code/serving.py", ".gitignore"):
        (folder / name).write_text(name)
    return folder


def test_a_signature_is_of_all_files_of_a_package(
    ours: tuple[Path, Path], package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sign(package) == hashlib.sha256(ours[1].read_bytes()).hexdigest()
    assert objection(package) is None  # whoever signs trusts the own key
    monkeypatch.delenv(SIGNING_KEY)
    _, others = key_pair(tmp_path, "others")
    monkeypatch.setenv(TRUSTED_KEYS, str(others))
    assert objection(package) == "none of the 1 trusted keys signed these files"
    others.write_bytes(others.read_bytes() + ours[1].read_bytes())  # a key that comes and one that goes
    assert objection(package) is None
    for name in ("MLmodel", "code/serving.py", ".gitignore"):
        whole = (package / name).read_bytes()
        (package / name).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        assert objection(package) == "none of the 2 trusted keys signed these files"
        (package / name).unlink()
        assert objection(package) == "none of the 2 trusted keys signed these files"
        (package / name).write_bytes(whole)
    (package / "code" / ".git").write_text("more")
    assert "none of the 2" in str(objection(package))
    (package / "code" / ".git").unlink()
    assert objection(package) is None
    made = json.loads((package / SIGNATURE).read_text())
    made["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(b"another").decode()
    for content in ("", "{}", "no JSON", json.dumps(made)):
        (package / SIGNATURE).write_text(content)
        assert "none of the 2" in str(objection(package))
    (package / SIGNATURE).unlink()
    assert "it is not signed (no model.sig)" in str(objection(package))
    monkeypatch.delenv(TRUSTED_KEYS)
    assert objection(package) is None  # no key, no claim
    assert sign(package) == ""
    assert not (package / SIGNATURE).exists()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_files_that_cannot_be_read_are_not_taken_for_files_that_nobody_signed(
    error: Exception, ours: tuple[Path, Path], package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(package)
    with monkeypatch.context() as patch:
        patch.setattr("model_signing.verifying.Config.verify", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            objection(package)
    assert objection(package) is None


def test_who_has_the_public_key_alone_verifies_with_the_library_s_own_program(
    ours: tuple[Path, Path], package: Path
) -> None:
    (package / ".gitignore").unlink()  # of which packages have none, and the program passes over it unless told
    sign(package)
    call = ["verify", "key", str(package), "--signature", str(package / SIGNATURE), "--public_key", str(ours[1])]
    run = [sys.executable, "-m", "model_signing", *call]
    assert subprocess.run(run, capture_output=True, check=False).returncode == 0
    (package / "MLmodel").write_text("other")
    assert subprocess.run(run, capture_output=True, check=False).returncode != 0


def test_signing_asks_nobody(ours: tuple[Path, Path], package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    sign(package)
    assert objection(package) is None


def test_keys_that_are_none_are_named(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {"ed25519": Ed25519PrivateKey.generate(), "curve": generate_private_key(SECP256K1())}
    for name, key in others.items():
        (tmp_path / f"{name}.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(public)
    locked = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )
    (tmp_path / "locked.pem").write_bytes(locked)
    (tmp_path / "long.pem").write_bytes(key_pair(tmp_path, "ours")[0].read_bytes() * 10_000)
    for name in ("ed25519.pem", "curve.pem", "locked.pem", "absent.pem", "ed25519.pub", "long.pem", "."):
        monkeypatch.setenv(SIGNING_KEY, str(tmp_path / name))
        for refused in (check_key, lambda: sign(package)):
            with pytest.raises(BadFileError, match=SIGNING_KEY):
                refused()
    monkeypatch.delenv(SIGNING_KEY)
    for name in ("ed25519.pub", "curve.pub", "locked.pem"):
        monkeypatch.setenv(TRUSTED_KEYS, str(tmp_path / name))
        with pytest.raises(BadFileError, match=f"{TRUSTED_KEYS} wants public keys on the curve P-256"):
            objection(package)
    assert not (package / SIGNATURE).exists()


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
        with pytest.raises(ModelAlteredError, match="none of the 1 trusted keys signed these files"):
            load(f"models:/{NAME}/1", world.config)
    with pytest.raises(ModelAlteredError, match="trusted keys"):
        serve(world.config, f"models:/{NAME}/1")
    with pytest.raises(GateError, match="none of the 1 trusted keys signed these files"):
        rollback(world.config, "reconstruction")
    (world.package_of("2") / SIGNATURE).unlink()
    world.client.set_model_version_tag(NAME, "2", PACKAGE, package_sha256(world.package_of("2")))
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
    assert world.tags("2")[SIGNED_BY] == hashlib.sha256((tmp_path / "ours.pub").read_bytes()).hexdigest()
    assert SIGNED_BY not in world.tags("1")
    said = {
        number: lineage(world.config, f"models:/{NAME}/{number}", prepared=lambda _: world.prepared) for number in "12"
    }
    assert said["1"][1].text.endswith("not signed")
    assert f"signed by key {world.tags('2')[SIGNED_BY][:12]}..." in said["2"][1].text


def test_whose_signature_it_is_is_checked_on_the_way_back(
    ours: tuple[Path, Path], world: World, few_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags are free: whoever may write to the database may claim another's signature, or any."""

    def checked() -> tuple[str, str]:
        links = lineage(world.config, f"models:/{NAME}/1", prepared=lambda _: world.prepared, check=True)
        return links[1].held, links[1].why

    world.register(0.5)
    right = world.tags("1")[SIGNED_BY]
    assert checked() == ("holds", "checksum and signature right")
    world.client.set_model_version_tag(NAME, "1", SIGNED_BY, "f" * 64)
    assert checked() == ("fails", f"signed by key {right[:12]}..., but the tag {SIGNED_BY} says {'f' * 12}")
    world.client.delete_model_version_tag(NAME, "1", SIGNED_BY)
    assert checked() == ("fails", f"there is a {SIGNATURE}, and no tag {SIGNED_BY}")
    world.client.set_model_version_tag(NAME, "1", SIGNED_BY, right)
    monkeypatch.delenv(SIGNING_KEY)
    assert checked() == ("holds", f"checksum right; {TRUSTED_KEYS} names no key to check the signature with")
    (world.package_of("1") / SIGNATURE).unlink()
    world.client.set_model_version_tag(NAME, "1", PACKAGE, package_sha256(world.package_of("1")))
    assert checked() == ("fails", f"there is no {SIGNATURE}, and a tag {SIGNED_BY}")
    world.client.delete_model_version_tag(NAME, "1", SIGNED_BY)
    assert checked() == ("holds", "checksum right")


def test_keys_may_stand_in_the_variables_themselves_and_are_told_to_nobody(
    ours: tuple[Path, Path], package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIGNING_KEY, ours[0].read_text())
    monkeypatch.setenv(TRUSTED_KEYS, key_pair(tmp_path, "others")[1].read_text() + ours[1].read_text())
    check_key()
    assert sign(package)
    assert objection(package) is None
    body = ours[0].read_text().splitlines()[1]
    monkeypatch.setenv(SIGNING_KEY, f"-----BEGIN PRIVATE KEY-----\n{body[:20]}\n-----END PRIVATE KEY-----")
    with pytest.raises(BadFileError, match=f"^{SIGNING_KEY}: {SIGNING_KEY} wants a private") as caught:
        sign(package)
    assert body[:20] not in str(caught.value)


def test_files_of_another_model_are_refused_also_where_they_are_signed(
    ours: tuple[Path, Path], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.register(0.5)
    entry = world.client.get_model_version(NAME, "1")
    world.client.create_registered_model("condswin-segmentation")
    world.client.create_model_version("condswin-segmentation", entry.source, tags=dict(entry.tags))
    load_registered(f"models:/{NAME}/1", world.config)
    with pytest.raises(ModelAlteredError, match="its files are of a network for reconstruction"):
        load_registered("models:/condswin-segmentation/1", world.config)


def test_whoever_signs_must_be_trusted_there(
    ours: tuple[Path, Path], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each run would register anew what the run before registered."""
    monkeypatch.setenv(TRUSTED_KEYS, str(key_pair(tmp_path, "others")[1]))
    with pytest.raises(BadFileError, match=f"others.pub: {TRUSTED_KEYS} lacks the public key of {SIGNING_KEY}"):
        world.register(0.5)
    assert world.client.search_registered_models() == []
