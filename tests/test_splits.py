import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condswin.config.names import Split
from condswin.config.task import IngestConfig
from condswin.errors import BadDataError
from condswin.splits import assign_splits, refuse_one_patient, remarks
from condswin.tasks.source import Case, CaseInfo


def split(cases: list[Case], infos: dict[str, CaseInfo], policy: IngestConfig, seed: int) -> dict[str, Split]:
    return assign_splits(cases, infos, policy, "reconstruction", seed=seed)


def cases_of(patients: list[str], folder: str = "") -> tuple[list[Case], dict[str, CaseInfo]]:
    cases = [Case(f"{folder}{number}", folder, {}) for number in range(len(patients))]
    return cases, {case.name: CaseInfo(patient, {}) for case, patient in zip(cases, patients, strict=True)}


@settings(deadline=None)
@given(st.lists(st.sampled_from([f"p{n}" for n in range(30)]), min_size=3, max_size=60), st.integers(0, 5))
def test_patients_never_part_and_no_split_starves(patients: list[str], seed: int) -> None:
    cases, infos = cases_of(patients)
    splits = split(cases, infos, IngestConfig(), seed)
    by_patient: dict[str, set[str]] = {}
    for case in cases:
        by_patient.setdefault(infos[case.name].patient, set()).add(splits[case.name])
    assert all(len(found) == 1 for found in by_patient.values())
    assert set(splits) == {case.name for case in cases}
    if len(by_patient) >= 3:
        assert set(splits.values()) == {"train", "val", "test"}
    assert split(cases, infos, IngestConfig(), seed) == splits


@settings(deadline=None)
@given(st.lists(st.sampled_from([f"p{n}" for n in range(30)]), min_size=20, max_size=60), st.integers(2, 6))
def test_every_patient_validates_once(patients: list[str], folds: int) -> None:
    cases, infos = cases_of(patients)
    plain = split(cases, infos, IngestConfig(), 3)
    if len(set(patients)) < folds + 8:
        return
    foldings = [split(cases, infos, IngestConfig(folds=folds, fold=fold), 3) for fold in range(folds)]
    for case in cases:
        found = sorted(folding[case.name] for folding in foldings)
        # The test split is the same in every fold, and without folds.
        assert found == ["test"] * folds if plain[case.name] == "test" else ["train"] * (folds - 1) + ["val"]
    sizes = [len({infos[name].patient for name, split in one.items() if split == "val"}) for one in foldings]
    assert max(sizes) - min(sizes) <= 1


def test_more_folds_than_patients_are_refused() -> None:
    cases, infos = cases_of(["a", "b", "c"])
    with pytest.raises(BadDataError, match="5 folds of 2 patients"):
        split(cases, infos, IngestConfig(folds=5), 0)


def test_another_seed_draws_other_patients() -> None:
    cases, infos = cases_of([f"p{number}" for number in range(40)])
    assert split(cases, infos, IngestConfig(), 1) != split(cases, infos, IngestConfig(), 2)


def test_a_new_patient_moves_few_others() -> None:
    cases, infos = cases_of([f"p{number}" for number in range(41)])
    all_of_them = split(cases, infos, IngestConfig(), 1)
    without = split(cases[:-1], infos, IngestConfig(), 1)
    assert sum(without[name] != all_of_them[name] for name in without) <= 3


def known(*patients: str, field: str = "patient_id attribute") -> dict[str, CaseInfo]:
    return {f"file{n}": CaseInfo(patient, {"patient_from": field}) for n, patient in enumerate(patients)}


@pytest.mark.parametrize("field", ["patient_id attribute", "header"])
def test_one_identifier_in_all_files_is_named_by_its_field_and_never_shown(field: str) -> None:
    with pytest.raises(BadDataError) as caught:
        refuse_one_patient(known(*["JANE"] * 96, field=field), "reconstruction")
    assert f"96 of 96 files have the same {field}" in str(caught.value)
    assert "set reconstruction.ingest.split_by to file" in str(caught.value)
    assert "JANE" not in str(caught.value)
    assert "\n" not in str(caught.value)
    # One file is one patient's.
    refuse_one_patient(known("JANE"), "reconstruction")


def test_an_identifier_in_folders_of_two_splits_is_named_by_its_field_and_counted() -> None:
    infos = known(*["anonymous"] * 9, "x")
    cases = [Case(name, "val" if name in ("file7", "file8") else "train", {}) for name in infos]
    policy = IngestConfig(folders={"train": "train", "test": "val"})
    with pytest.raises(BadDataError, match="a person may be in one split only") as caught:
        split(cases, infos, policy, 0)
    text = str(caught.value)
    assert "file7, file8, file0 and 6 more: the same patient by their patient_id attribute" in text
    assert "(2 in the folder for test, 7 in the folder for train)" in text
    assert "reconstruction.ingest.split_by to file" in text
    assert "anonymous" not in text


def test_a_patient_in_folders_for_validation_and_test_is_refused() -> None:
    infos = known("a", "b", "b")
    cases = [Case(name, folder, {}) for name, folder in zip(infos, ("train", "val", "test"), strict=True)]
    with pytest.raises(BadDataError, match=r"file1, file2: .* \(1 in the folder for test, 1 in the folder for val\)"):
        split(cases, infos, IngestConfig(folders={name: name for name in ("train", "val", "test")}), 0)


@pytest.mark.parametrize(
    ("patients", "counts"),
    [
        (["anonymous"] * 90 + list("abcdef"), [("90", "")]),
        (["anonymous"] * 48 + ["0"] * 48, [("48 and 48", " each")]),
        ([str(n % 30) for n in range(60)], []),
        (["a"] * 4 + ["b"] * 2, []),
    ],
)
def test_identifiers_of_very_many_files_are_counted(patients: list[str], counts: list[int]) -> None:
    infos = known(*patients)
    splits = split([Case(name, "", {}) for name in infos], infos, IngestConfig(), 0)
    said = [line for line in remarks(infos, splits, "reconstruction") if "have the same" in line]
    assert said == [
        f"warning: {count} of 96 files have the same patient_id attribute{each}, and so stay in one split; if it is a "
        "placeholder, set reconstruction.ingest.split_by to file"
        for count, each in counts
    ]


def test_a_split_without_cases_is_never_silent() -> None:
    infos = known("anonymous", "0", "0")
    splits = split([Case(name, "", {}) for name in infos], infos, IngestConfig(), 0)
    assert remarks(infos, splits, "reconstruction") == [
        "warning: no val cases: 3 cases of 2 patients (by their patient_id attribute); ingest more patients, or see "
        "reconstruction.ingest (folders, split_by)"
    ]
    infos = known("a", field="file name")
    assert remarks(infos, {"file0": "train"}, "segmentation")[0].startswith("warning: no val and no test cases: 1 case")
