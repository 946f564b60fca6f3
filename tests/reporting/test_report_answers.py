from dataclasses import replace

import pytest

from condswin.config.names import TaskName
from condswin.config.profiles import compose
from condswin.manifest import CaseRecord, Manifest
from condswin.networks.saving import ModelSpec
from condswin.registry.interval import Interval
from condswin.reporting.answers import answers
from condswin.reporting.costs import training_table
from condswin.reporting.data import data_facts, data_line, patient_numbers
from condswin.reporting.page import gain_table
from condswin.reporting.scores import Scores, verdict
from condswin.tasks.facts import Facts, Row
from condswin.tasks.judging import Judging
from condswin.tasks.loading import load
from tests.reporting.pages import DECISION, PATIENTS, scores, task_report


def test_the_first_answers_name_what_won_by_how_much_and_what_is_not_known() -> None:
    found = task_report().answers
    asked = ["Which?", "By how much?", "Sure?", "Gate", "Use it?", "Where weak?", "worst", "Cost"]
    assert list(found) == asked
    assert found["Which?"] == ["unrolled-swin, chosen of 2 variants by PSNR on validation cases."]
    gain = scores().gain("compressed-sensing", "psnr")
    said = (
        f"Against compressed-sensing: +{gain.mean:.2f} dB ({gain.low:.2f} to {gain.high:.2f}), better on 9 of 10 cases."
    )
    assert said in found["By how much?"]
    assert "Not told apart from swin: the interval holds zero." in found["Sure?"]
    assert found["Sure?"][-1] == "One training per variant: another seed may order them otherwise."
    assert found["Gate"][:2] == [
        "Every rule must hold, on at least 8 patients. Of 2 rules: 1 hold, 1 broken; 1 more do not apply.",
        "Next: a better network; more test patients do not mend it.",
    ]
    assert found["Cost"] == [
        "12 ms for a slice of 96 x 96 on a CPU, 8.1 times the operations and 2.5 times the latency of swin; "
        "330,168 parameters."
    ]
    assert found["Use it?"] == ["Not on patients: all test cases are generated.", "No: the gate refused it."]
    values, theirs = (scores().values(method, "psnr") for method in ("unrolled-swin", "compressed-sensing"))
    worst = min(values, key=values.__getitem__)
    assert found["worst"][0] == f"{worst}: PSNR {values[worst]:.2f} dB; compressed-sensing {theirs[worst]:.2f}."
    assert len(found["worst"]) == 3
    assert task_report(decision=None).answers["Gate"][0].startswith("It has not decided yet: `condswin register`")


def test_nothing_is_better_or_worse_on_fewer_patients_than_the_gate_asks_for() -> None:
    few = replace(scores(), least=10)
    found = verdict(few, "psnr")
    assert (found.beaten, found.ahead) == ([], [])
    told = task_report(few).answers["Sure?"]
    assert told[0] == "No: 9 generated people in the test set, and fewer than 10 decide nothing."
    assert not any(said.startswith(("Better", "Worse")) for said in told)
    assert {cell.mark for row in gain_table(few, DECISION).rows for cell in row} == {""}


def test_a_kind_of_case_is_weak_if_its_interval_is_apart_from_the_others() -> None:
    apart = replace(scores(), least=4)
    rows = [dict(row) for row in apart.methods["unrolled-swin"]]
    alike = "No kind of case is told apart from the others by its interval."
    assert alike in task_report(apart).answers["Where weak?"]
    for row in rows:
        row["psnr"] = float(row["psnr"]) - (15 if row["acquisition"] == "T2" else 0)
    worse = replace(apart, methods={**apart.methods, "unrolled-swin": rows})
    assert any(said.startswith("Acquisition T2: PSNR 1") for said in task_report(worse).answers["Where weak?"])
    few = "Not known by kind of case: that takes 8 patients of each kind."
    assert few in task_report(replace(worse, least=8)).answers["Where weak?"]


def segmented(values: dict[str, list[float]], before: list[float]) -> Scores:
    """Liver Dice of two networks and the reference method; of the first also before post-processing."""
    rows: dict[str, list[Row]] = {
        method: [{"case": f"case-{number}", "liver_dice": value} for number, value in enumerate(found, start=1)]
        for method, found in values.items()
    }
    for row, value in zip(rows["swin"], before, strict=True):
        row["unprocessed_liver_dice"] = value
    return Scores(load(Facts, "segmentation", compose(["demo"])), PATIENTS, rows, ["active-contour"])


def test_what_post_processing_spoilt_and_what_needs_no_training_stand_on_the_first_screen() -> None:
    dice = {"swin": [0.0, 0.9, 0.8], "active-contour": [0.87, 0.95, 0.7], "conditional-light": [0.1, 0.9, 0.9]}
    found = answers(
        segmented(dice, [0.29, 0.8, 0.8]),
        {"metric": "liver_dice", "chosen_on": "val"},
        None,
        "none",
        seen={},
        networks={"swin": "swin", "conditional-light": "conditional-light"},
    )
    assert (
        "Post-processing made Liver Dice worse on 1 of 3 cases, by up to 0.290; on average it changed by -0.063."
        in found["Where weak?"]
    )
    assert found["worst"][0] == "case-1: Liver Dice 0.000; active-contour 0.870; 0.290 before post-processing."
    assert found["Use it?"] == [
        "active-contour needs no training and is better, as far as few patients tell: 0.840 against 0.567, "
        "on 2 of 3 cases."
    ]
    assert "Nothing right, by Liver Dice on 1 of 3 cases." in found["Where weak?"]
    said = found["Does routing pay?"][0]
    assert said.startswith("conditional-light against swin: +0.067")
    assert "which 3 people are too few to tell" in said
    assert "mean over patients." in found["By how much?"][0]


def test_an_open_decision_says_what_comes_next() -> None:
    rule = DECISION["rules"][0]
    short = rule | {"outcome": "undecided", "text": "gain -1; the mean itself falls short", "estimate": -1.0}
    unsure = rule | {"outcome": "undecided", "text": "gain 1"}
    for rules, said in (
        ([short, unsure | {"enough": 20}], "Next: a better network, and at least 20 test patients."),
        ([short, unsure | {"patients": 5}], "Next: a better network, and at least 8 test patients."),
        ([short], "Next: a better network."),
        ([unsure | {"enough": 20}, unsure | {"enough": 31}], "Next: more test patients: at least 31."),
        ([unsure], "Next: more test patients."),
        ([{"rule": "psnr superior to x", "outcome": "undecided", "text": "no scores"}], "Next: what the rules lack"),
    ):
        told = task_report(decision={**DECISION, "outcome": "undecided", "rules": rules}).answers["Gate"]
        assert any(each.startswith(said) for each in told)
        assert ("PSNR superior to zero-filled: the mean falls short (-1.00)." in told) == (short in rules)
    held = task_report(decision={**DECISION, "outcome": "held"}).answers["Gate"]
    assert "Next: a person approves it with `condswin approve`." in held


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("held", "the champion is frozen since 2026 by ada: audit"),
        ("refused", "version 2 was rejected at 2026 by ada (looks wrong); delete its tag 'rejected' to try again"),
        ("promoted", "version 2 is champion already, but not by the gate"),
    ],
)
def test_a_decision_without_rules_is_told_by_its_reason_alone(outcome: str, reason: str) -> None:
    decision = {name: value for name, value in DECISION.items() if name not in ("rules", "generated")}
    decision |= {"outcome": outcome, "promoted": outcome == "promoted", "reasons": [reason]}
    found = task_report(decision=decision).answers
    said = f"{reason[0].upper()}{reason[1:]}."
    assert found["Gate"] == [said]
    assert found["Use it?"] == ["Not on patients: all test cases are generated.", said]


def test_what_a_method_without_training_is_worse_at_and_whose_training_was_not_at_its_end() -> None:
    found = segmented({"swin": [0.0, 0.9, 0.8], "active-contour": [0.87, 0.95, 0.7]}, [0.0, 0.9, 0.8])
    for row, theirs, ours in zip(*found.methods.values(), (4, 5, 6), strict=True):
        row["lesions_false"], theirs["lesions_false"] = ours, 5 * ours
    told = answers(found, {"metric": "liver_dice", "chosen_on": "val"}, None, "none", {}, {"swin": "swin"}, ["swin"])
    assert told["Use it?"][0].endswith("on 2 of 3 cases; but False lesions 25.000 against 5.000.")
    assert told["Sure?"][-1] == "Still improving when training ended: swin; longer ones may order them otherwise."


def test_a_champion_of_generated_data_is_for_trying_out() -> None:
    decision = {**DECISION, "outcome": "promoted", "promoted": True}
    for generated, said in (
        ("all", "To try things out, as champion: the gate promoted it on generated data."),
        ("some", "As champion: the gate promoted it."),
        ("none", "As champion: the gate promoted it."),
    ):
        found = answers(
            scores(), {"metric": "psnr", "chosen_on": "val"}, decision, generated, seen={}, networks={"swin": "swin"}
        )
        assert found["Use it?"][-1] == said
        assert not any("another seed" in each for each in found["Sure?"])


def test_few_patients_with_both_scores_are_no_interval_around_zero() -> None:
    found = scores()
    rows = [dict(row) | ({"psnr": float("nan")} if number > 4 else {}) for number, row in
            enumerate(found.methods["compressed-sensing"])]  # fmt: skip
    told = task_report(replace(found, methods={**found.methods, "compressed-sensing": rows})).answers["Sure?"]
    assert "Not told apart from compressed-sensing: fewer than 8 generated people have both." in told
    assert "Not told apart from swin: the interval holds zero." in told


def test_kinds_apart_from_a_middle_one_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval of the best kind may be wide."""
    found = replace(scores(), least=2)
    groups = {"low": ["case-0", "case-2"], "middle": ["case-3", "case-4"], "high": ["case-5", "case-6"]}
    means = {"low": (1.0, 0.5, 1.5), "middle": (3.0, 2.9, 3.1), "high": (4.0, 1.0, 7.0)}
    monkeypatch.setattr(Scores, "kinds", lambda self: {"acquisition": groups})
    by_cases = {tuple(cases): Interval(*means[name], 0.1, 2) for name, cases in groups.items()}
    mean = Scores.mean
    monkeypatch.setattr(
        Scores, "mean", lambda self, method, column, cases=None: by_cases[tuple(cases)] if cases else mean(
            self, method, column)
    )  # fmt: skip
    said = task_report(found).answers["Where weak?"]
    assert "Acquisition low: PSNR 1.00 dB (0.50 to 1.50); middle: 3.00 dB (2.90 to 3.10)." in said


def test_costs_and_trainings_have_a_row_per_method() -> None:
    page = task_report()
    assert page.costs is not None
    assert page.training is not None
    costs = {row[0].text: [cell.text for cell in row] for row in page.costs.rows}
    one, *parts = map(float, costs["unrolled-swin"][2:7])
    assert one == pytest.approx(sum(parts), abs=2e-3)
    assert costs["compressed-sensing"][7] == "not measured"
    assert costs["unrolled-swin"][-1] == "96 x 96"
    no_history = training_table({"swin": ModelSpec("reconstruction", "swin", "swin", "demo", {}, 3, 2)}, {"swin": []},
                                ("psnr", True))  # fmt: skip
    assert [cell.text for cell in no_history.rows[0]][:4] == ["swin", "unknown", "unknown", "unknown"]
    assert [cell.text for cell in page.training.rows[0]] == [
        "unrolled-swin", "3", "2", "no", "4", "0.003", "cosine", "10"
    ]  # fmt: skip


def test_the_page_says_whose_data_it_is_and_how_it_was_made() -> None:
    facts = load(Facts, "segmentation", compose(["demo"]))
    details = {"generated": True, "spacing": [5.0, 2.5, 3.0], "shape": [128, 128, 29], "orientation": "LPS"}
    cases = [
        CaseRecord(f"volume-{number}", split, f"key-{number // 2}", {}, details)
        for number, split in enumerate(("train", "train", "val", "test", "test"))
    ]
    manifest = Manifest("segmentation", cases, {"windows": [[-160.0, 240.0]]}, [])
    line = data_line(manifest, facts, "data/demo/segmentation", {})
    assert line.startswith(
        "Generated CT data, of no real patient: data/demo/segmentation. 2 training cases (1 generated people), "
    )
    assert "2 test cases (2 generated people); 1 people are in two splits." in line
    learned = {"code": {"git_commit": "abc"}, "data_sha256": manifest.fingerprint()}
    for provenance, said in (
        ({}, f"Data {manifest.fingerprint()[:12]}."),
        (learned, ", trained by commit abc."),
        (learned | {"data_sha256": "0" * 64}, ", trained by commit abc on other data."),
        ({"code": {}}, ", trained by commit unknown on unknown data."),
    ):
        assert data_line(manifest, facts, "data/demo/segmentation", provenance).endswith(said)
    known = load(Judging, "segmentation", compose(["demo"])).describe(manifest)
    assert known["windows"] == "-160 to 240 HU (level 40, width 400)"
    assert (known["pixels"], known["between slices"], known["slices per volume"]) == ("2.5 to 3 mm", "5 mm", "29")
    assert data_facts(manifest, facts, "data/demo/segmentation", known)["generated"] == facts.demo
    assert "generated" not in data_facts(manifest, facts, "elsewhere", known)
    people = {"volume-4": "key-2", "volume-3": "key-1", "volume-5": "key-2"}
    assert patient_numbers(people) == {"volume-3": 1, "volume-4": 2, "volume-5": 2}


@pytest.mark.parametrize("task", ["reconstruction", "segmentation"])
def test_every_score_has_a_name_and_a_meaning(task: TaskName) -> None:
    facts = load(Facts, task, compose(["demo"]))
    for column in (*facts.metrics, *facts.further, *facts.ceilings, *facts.traits):
        assert facts.meaning(column).endswith("."), column
        assert "_" not in facts.called(column)
    for column in (*facts.metrics, *facts.further):
        assert column in facts.ranges or column == "psnr"
