import json
from pathlib import Path
from typing import Any

import pytest

from condswin.errors import BadDataError
from condswin.leaks import Known, refuse_trained_on, trained_on
from condswin.manifest import TRAINED_ON, CaseRecord, FileRecord, Manifest
from condswin.networks.saving import ModelSpec


def case(name: str, split: Any, content: str, patient: str = "", **details: Any) -> CaseRecord:
    files = {"kspace": FileRecord(f"{split}/{name}.h5", 1, content * 64)}
    found = {"patient_from": "header" if patient else "file name", **details}
    return CaseRecord(name, split, patient or "0123456789abcdef", files, found)


def manifest(*cases: CaseRecord) -> Manifest:
    return Manifest("reconstruction", list(cases), {}, [])


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDSWIN_PATIENT_KEY", "a secret")


TRAINING = manifest(case("a", "train", "1", "f" * 16), case("b", "val", "2"), case("c", "test", "3"))


def network(*trainings: Manifest | None) -> ModelSpec:
    """A network, and those that it started from, by what each was trained on."""
    provenance: dict[str, Any] = {}
    for number, each in enumerate(reversed(trainings)):
        told = {} if each is None else {TRAINED_ON: {split: each.known_by(split) for split in ("train", "val")}}
        provenance = {**told, **({"initial": provenance} if number else {})}
    return ModelSpec("reconstruction", "swin", "swin", "demo", 1, 1, {}, json.loads(json.dumps(provenance)))


@pytest.mark.parametrize(
    ("judged", "found"),
    [
        (case("c", "test", "3"), []),  # its own test case
        (case("a", "test", "9"), []),  # another scan in a file of that name
        (case("new", "test", "1"), ["new"]),  # the same file under another name
        (case("new", "test", "2"), ["new"]),  # one that chose the epoch
        (case("new", "test", "9", "f" * 16), ["new"]),  # another scan of a person
        (case("new", "test", "9", source_sha256={"kspace": "5" * 64}), []),
    ],
)
def test_a_case_is_known_again_by_image_or_person(judged: CaseRecord, found: list[str]) -> None:
    assert trained_on(network(TRAINING), manifest(judged), "test") == Known(found, told=True)


def test_keys_of_people_that_can_be_guessed_stay_with_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "f" * 16 in TRAINING.known_by("train")
    monkeypatch.delenv("CONDSWIN_PATIENT_KEY")
    assert "f" * 16 not in TRAINING.known_by("train")
    assert len(TRAINING.known_by("train")) == 1


def test_prepared_files_differ_and_what_they_were_made_from_does_not() -> None:
    prepared = case("t", "train", "7", source_sha256={"kspace": "5" * 64})
    assert trained_on(network(manifest(prepared)), manifest(case("t", "test", "5")), "test").cases == ["t"]
    # CT: the same voxels in another compression.
    packed = case("u", "train", "7", source_sha256={"volume": "8" * 64}, image_sha256="6" * 64)
    again = manifest(case("v", "test", "9", image_sha256="6" * 64))
    assert trained_on(network(manifest(packed)), again, "test").cases == ["v"]


def test_validation_cases_may_validate_but_not_test() -> None:
    judged = manifest(case("x", "val", "1"), case("y", "val", "2"))
    assert trained_on(network(TRAINING), judged, "val").cases == ["x"]
    assert trained_on(network(TRAINING), judged, "test").cases == []


def test_what_a_network_started_from_counts() -> None:
    other = manifest(case("p", "train", "4"))
    judged = manifest(case("q", "test", "4"), case("r", "test", "5"))
    assert trained_on(network(TRAINING, TRAINING, other), judged, "test") == Known(["q"], told=True)
    assert trained_on(network(TRAINING, None, other), judged, "test") == Known(["q"], told=False)
    assert trained_on(network(None), judged, "test") == Known([], told=False)


def test_a_refusal_says_how_many_which_and_what_to_do() -> None:
    many = manifest(*(case(f"c{i:02}", "train", f"{i:x}") for i in range(12)))
    judged = manifest(*(case(f"d{i:02}", "test", f"{i:x}") for i in range(14)))
    with pytest.raises(BadDataError) as caught:
        refuse_trained_on(network(many), judged, Path("data"), "val", "test")
    said = str(caught.value)
    assert said.startswith("data: swin was trained on 12 of 14 test cases, or on scans of the same people (d00, d01,")
    assert "d09 and 2 more)" in said
    assert said.endswith("if identifiers are placeholders, set reconstruction.ingest.split_by: file")
    assert "train again on this split" in said
    assert "reconstruction.ingest.folders" in said
    assert "\n" not in said
    assert [refuse_trained_on(network(each), judged, Path("data"), "test") for each in (manifest(), None)] == [
        True,
        False,
    ]


def test_no_name_and_no_whole_checksum_leaves_the_data() -> None:
    kept = TRAINING.known_by("train")
    assert len(kept) == 2
    assert "f" * 16 in kept
    assert {len(key) for key in kept} == {16}
