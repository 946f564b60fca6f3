from typing import Any

from condswin.reporting.decision import decision_lines, headline, remarks

RULES = [
    {"rule": "psnr at least 30", "outcome": "holds", "text": "mean 31"},
    {"rule": "psnr superior to a", "outcome": "broken", "text": "gain -1", "worst": ["x", "y"]},
    {"rule": "psnr superior to champion", "outcome": "not applicable", "text": "there is no champion"},
    {"rule": "ssim superior to champion", "outcome": "not applicable", "text": "there is no champion"},
]


def record(**changes: Any) -> dict[str, Any]:
    basis = {"version": "4", "champion": None, "promoted": False, "outcome": "refused", "rules": RULES}
    return {**basis, "reasons": ["psnr superior to a: gain -1"], **changes}


def test_headlines_name_the_version_and_the_champion() -> None:
    assert headline(record()) == "refused: version 4 is not promoted, there is no champion"
    assert headline(record(champion="2", outcome="held")) == "held: version 4 is not promoted, version 2 stays champion"
    assert headline(record(champion="4", promoted=True)) == "promoted: version 4 is champion"


def test_rules_that_were_applied_have_a_line_and_the_others_share_one() -> None:
    assert decision_lines(record()) == [
        "  holds: psnr at least 30: mean 31",
        "  broken: psnr superior to a: gain -1; worst: x, y",
        "  there is no champion, so not applied: psnr superior to champion, ssim superior to champion",
    ]
    without = record(reasons=["smoke test: not finite"])
    del without["rules"]
    assert decision_lines(without) == ["  smoke test: not finite"]


def test_remarks_say_what_was_generated_and_the_gates_note() -> None:
    said = record(rules=[], gate={"note": "a demo's gate"}, generated={"challenger": "some", "champion": "none"})
    assert remarks(said) == ["note: a demo's gate", "the challenger was trained on data of which some is generated"]
    said = record(rules=[], generated={"challenger": "unknown", "champion": "all", "test": "some"})
    assert remarks(said) == [
        "some test cases are generated",
        "the challenger was trained on data of unknown origin",
        "the champion was trained on generated data alone",
    ]
    few = record(rules=RULES[:1], reasons=["5 patients are in the test set", "psnr at least 30: mean 31"])
    assert remarks(few) == ["5 patients are in the test set"]
