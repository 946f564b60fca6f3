import math
from typing import Any

import pytest

from condswin.config.gate import GateConfig, RuleConfig
from condswin.config.profiles import compose
from condswin.ct.facts import SegmentationFacts
from condswin.errors import ConfigError
from condswin.mri.facts import ReconstructionFacts
from condswin.registry.gate import Decision, Evidence, Ruling, decide
from condswin.tasks.facts import Row
from tests.registry.toy import ToyFacts

COUNT = 8


class OtherFacts(ToyFacts):
    further = {"false": False}  # noqa: RUF012
    ceilings = {"fallback": 0.5}  # noqa: RUF012


def rows(*values: float, metric: str = "psnr", baseline: float = 0.0, **traits: Any) -> list[Row]:
    return [
        {"case": f"c{i}", metric: value, f"zero_filled_{metric}": baseline, **{k: v[i] for k, v in traits.items()}}
        for i, value in enumerate(values)
    ]


def spread(mean: float, by: float = 0.1) -> list[float]:
    """Values of so many cases around a mean."""
    return [mean + by * (i % 4 - 1.5) for i in range(COUNT)]


def gate(rule: dict[str, Any], challenger: list[Row], champion: list[Row] | None = None, **more: Any) -> Decision:
    settings = {"patients": COUNT, **{key: more.pop(key) for key in ("patients", "generated_over_real") if key in more}}
    patients = {str(row["case"]): str(row["case"]) for row in challenger}
    evidence = Evidence(challenger, **{"patients": patients, "champion": champion, **more})
    return decide(OtherFacts, GateConfig(rules=[RuleConfig(**rule)], **settings), evidence)


def ruling(*arguments: Any, **more: Any) -> Ruling:
    (found,) = gate(*arguments, **more).rulings
    return found


def test_a_floor_is_reached_missed_or_on_neither_side() -> None:
    floor = {"metric": "psnr", "floor": 30.0}
    assert gate(floor, rows(*spread(31))).outcome == "promoted"
    missed = gate(floor, rows(*spread(29)))
    assert (missed.outcome, missed.rulings[0].outcome) == ("refused", "broken")
    assert missed.reasons[0].startswith("psnr at least 30: mean 29 (95 % interval 28.")
    between = gate(floor, rows(*spread(30.02)))
    assert between.outcome == "undecided"
    assert between.rulings[0].low < 30 < between.rulings[0].high


def test_a_network_that_others_stand_in_for_is_no_champion() -> None:
    floor = {"metric": "psnr", "floor": 30.0}
    replaced = gate(floor, rows(*spread(31), fallback=[1.0] * 5 + [0.0, 0.0, math.nan]))
    assert replaced.outcome == "refused"
    assert replaced.reasons == ["fallback at most 0.5: its mean is 0.714286"]
    # Half is not more than half, and where no prediction says who made it, nothing is asked.
    for share in ([1.0, 0.0] * 4, [math.nan] * COUNT):
        assert gate(floor, rows(*spread(31), fallback=share)).outcome == "promoted"


def test_a_ceiling_where_lower_is_better() -> None:
    ceiling = {"metric": "false", "ceiling": 2.0}
    held = ruling(ceiling, rows(*spread(1.5), metric="false"))
    assert held.outcome == "holds"
    assert held.low < held.estimate < held.high < 2.0
    assert held.estimate == pytest.approx(1.5)
    assert gate(ceiling, rows(*spread(2.5), metric="false")).outcome == "refused"


def test_a_mean_and_every_case_are_taken_as_they_are() -> None:
    values = rows(*spread(30.02))
    assert gate({"metric": "psnr", "floor": 30.0, "of": "mean"}, values).outcome == "promoted"
    assert gate({"metric": "psnr", "floor": 30.1, "of": "mean"}, values).outcome == "refused"
    every = gate({"metric": "psnr", "floor": 30.0, "of": "every_case"}, values)
    assert every.outcome == "refused"
    assert every.reasons == ["psnr at least 30 in every case: 4 of 8 cases are beyond it, the worst has 29.87"]
    assert every.rulings[0].worst == [0, 4, 1]
    assert gate({"metric": "psnr", "floor": 29.0, "of": "every_case"}, values).outcome == "promoted"
    # One case shows that a rule about every case is broken, however few there are; it never shows that it holds.
    few = rows(20.0, 31.0)
    assert gate({"metric": "psnr", "floor": 30.0, "of": "every_case"}, few).outcome == "refused"
    held = gate({"metric": "psnr", "floor": 10.0, "of": "every_case"}, few).rulings[0]
    assert (held.outcome, held.worst) == ("undecided", [])
    assert held.text == "it holds in 2 cases, the worst has 20; fewer than 8 patients decide nothing"


def test_superiority_is_decided_by_the_interval_not_by_the_mean() -> None:
    superior = {"metric": "psnr", "superior_to": "champion"}
    champion = rows(*spread(30))
    assert gate(superior, rows(*spread(30.5, 0.2)), champion).outcome == "promoted"
    assert gate(superior, rows(*spread(29.5, 0.2)), champion).outcome == "refused"
    lucky = gate(superior, rows(*spread(30)[:7], 33.0), champion)
    assert lucky.rulings[0].estimate > 0.3
    assert lucky.outcome == "undecided"
    equal = gate(superior, champion, champion)
    assert equal.outcome == "refused"
    assert "gain +0 (the same of each) over 8 patients, needed more than +0" in equal.reasons[0]
    assert gate({**superior, "margin": 1.0}, rows(*spread(30.5, 0.2)), champion).outcome == "refused"
    assert gate(superior, champion).rulings[0].text == "there is no champion"


def test_non_inferiority_allows_a_loss_within_the_margin() -> None:
    rule = {"metric": "psnr", "not_inferior_to": "champion", "margin": 0.5}
    champion = rows(*spread(30))
    assert gate(rule, champion, champion).outcome == "promoted"
    assert gate(rule, rows(*spread(29.8, 0.12)), champion).outcome == "promoted"
    lost = ruling(rule, rows(*spread(29.0, 0.12)), champion)
    assert (lost.outcome, lost.needed) == ("broken", -0.5)
    assert lost.estimate == pytest.approx(-1.0)


def test_margins_in_percent_and_lower_is_better() -> None:
    champion = rows(*spread(0.1, 0.01), metric="mse")
    rule = {"metric": "mse", "not_inferior_to": "champion", "margin_percent": 10.0}
    worse = rows(*(value * 1.05 for value in spread(0.1, 0.01)), metric="mse")
    found = ruling(rule, worse, champion)
    assert found.outcome == "holds"
    assert found.needed == pytest.approx(-0.01)
    assert found.estimate == pytest.approx(-0.005)
    much_worse = rows(*(value * 1.2 for value in spread(0.1, 0.01)), metric="mse")
    assert ruling(rule, much_worse, champion).outcome == "broken"
    better = rows(*spread(0.05, 0.012), metric="mse")
    gain = ruling({"metric": "mse", "superior_to": "champion"}, better, champion)
    assert (gain.outcome, gain.estimate) == ("holds", pytest.approx(0.05))
    assert "lower is better" in gain.text


def test_each_reference_method_is_asked() -> None:
    challenger = rows(*spread(30), baseline=25.0)
    rule = {"metric": "psnr", "superior_to": "baselines"}
    strong = gate(rule, challenger, references={"classic": rows(*spread(31, 0.2))})
    assert [each.rule for each in strong.rulings] == ["psnr superior to zero-filled", "psnr superior to classic"]
    assert [each.outcome for each in strong.rulings] == ["holds", "broken"]
    assert strong.outcome == "refused"
    assert gate(rule, challenger, references={"classic": rows(*spread(29, 0.2))}).outcome == "promoted"
    absent = gate(rule, challenger, references={"classic": "its scores are of other data"})
    assert absent.outcome == "undecided"
    assert absent.reasons == ["psnr superior to classic: its scores are of other data"]
    assert gate(rule, challenger).outcome == "undecided"


def test_cases_of_one_person_are_one_draw() -> None:
    champion, better = rows(*[30.0] * 24), rows(*[30.2 + 0.2 * (i // 6 % 2) for i in range(24)])
    rule = {"metric": "psnr", "superior_to": "champion"}
    apart = gate(rule, better, champion, patients=8)
    assert apart.outcome == "promoted"
    people = {f"c{i}": f"person {i // 6}" for i in range(24)}
    evidence = Evidence(better, people, champion=champion)
    together = decide(OtherFacts, GateConfig(rules=[RuleConfig(**rule)], patients=8), evidence)
    assert together.outcome == "undecided"
    assert (together.patients, together.rulings[0].patients, together.rulings[0].cases) == (4, 4, 24)
    assert "over 4 patients (24 cases)" in together.rulings[0].text
    # Averages over people, not over their cases.
    uneven = decide(
        OtherFacts,
        GateConfig(rules=[RuleConfig(metric="psnr", floor=1.0, of="mean")], patients=2),
        Evidence(rows(10, 10, 10, 20), {"c0": "a", "c1": "a", "c2": "a", "c3": "b"}),
    )
    assert uneven.rulings[0].estimate == pytest.approx(15)


def test_a_champion_that_was_trained_on_every_test_case_is_compared_on_none() -> None:
    rule = {"metric": "psnr", "superior_to": "champion"}
    better, champion = rows(*spread(31)), rows(*spread(30))
    assert ruling(rule, better, champion).outcome == "holds"
    found = ruling(rule, better, champion, left_out=frozenset(str(row["case"]) for row in better))
    assert (found.outcome, found.text) == (
        "undecided",
        "the champion was trained on all of these test cases; give others",
    )


def test_few_patients_decide_nothing_however_good_they_look() -> None:
    found = gate({"metric": "psnr", "floor": 1.0}, rows(*spread(30)), patients=9)
    assert found.outcome == "undecided"
    assert found.reasons[0] == "8 patients are in the test set, and fewer than 9 decide nothing"
    assert gate({"metric": "psnr", "floor": 99.0}, rows(*spread(30)), patients=9).outcome == "undecided"
    assert gate({"metric": "psnr", "floor": 1.0, "of": "mean"}, rows(30.0, 30.0), patients=3).outcome == "undecided"
    assert gate({"metric": "psnr", "floor": 1.0}, rows(30.0), patients=1).outcome == "undecided"


def test_what_is_undecided_says_how_many_would_decide_and_names_the_worst() -> None:
    found = ruling({"metric": "psnr", "superior_to": "champion"}, rows(*spread(30.06, 0.1)), rows(*[30.0] * COUNT))
    assert found.outcome == "undecided"
    std = 0.1 * math.sqrt(1.25 * 8 / 7)
    assert found.enough == math.ceil(((1.959964 + 0.841621) * std / 0.06) ** 2) + 2
    assert f"about {found.enough} patients would decide" in found.text
    assert found.worst == [0, 4, 1]
    hopeless = ruling({"metric": "psnr", "floor": 31.0}, rows(*spread(30.99)))
    assert hopeless.enough is None
    assert "the mean itself falls short" in hopeless.text


def test_subgroups() -> None:
    sites, sizes = ["a", "b"] * 8, [1.0, 20.0, 50.0, math.nan] * 4
    challenger = rows(*([30.0, 20.0] * 8), site=sites, size=sizes)
    rule = {"metric": "psnr", "floor": 25.0, "of": "mean"}
    assert gate({**rule, "where": {"site": "a"}}, challenger).outcome == "promoted"
    assert gate({**rule, "where": {"site": "b"}}, challenger).outcome == "refused"
    some = ruling({**rule, "where": {"size": "> 1, <= 50"}}, challenger)
    assert (some.cases, some.rule) == (8, "psnr at least 25 on average where size > 1, <= 50")
    assert ruling({**rule, "where": {"size": "= 1"}}, challenger, patients=4).cases == 4
    nobody = gate({**rule, "where": {"site": "c"}}, challenger)
    assert (nobody.outcome, nobody.rulings[0].text) == ("undecided", "no test case is one of these")
    # Eight decide, and there are sixteen, but four of this site.
    few = gate({**rule, "where": {"site": "a", "size": "= 50"}}, challenger)
    assert few.outcome == "undecided"
    assert "fewer than 8 patients decide nothing" in few.rulings[0].text


def test_lesions_by_size() -> None:
    """Two scans of each person; a person without a lesion of the size is none of the patients that decide."""
    recall = [1.0, 0.5, 1.0, 1.0, math.nan, math.nan, 1.0, math.nan, 0.5, 1.0] * 3
    tables: list[list[Row]] = [
        [{"case": f"c{i}", "lesion_recall_from_20mm": value} for i, value in enumerate(values)]
        for values in (recall, [value / 2 for value in recall])
    ]
    people = {f"c{i}": f"person {i // 2}" for i in range(30)}

    def judged(champion: list[Row] | None, **rule: Any) -> Ruling:
        rules = GateConfig(rules=[RuleConfig(metric="lesion_recall_from_20mm", **rule)], patients=12)
        return decide(SegmentationFacts, rules, Evidence(tables[0], people, champion=champion)).rulings[0]

    found = judged(None, floor=0.5)
    assert (found.outcome, found.patients, found.cases) == ("holds", 12, 21)
    assert found.estimate == pytest.approx((0.75 + 1 + 1 + 0.75) / 4)
    assert judged(None, floor=0.9).outcome == "undecided"
    assert judged(tables[1], superior_to="champion").outcome == "holds"
    (default,) = [
        rule for rule in compose(["lits"]).segmentation.gate.rules if rule.metric == "lesion_recall_from_20mm"
    ]
    assert default.not_inferior_to == "champion"


def test_the_recipes_ask_each_kind_of_scan() -> None:
    """A gain on one kind of knee scan does not pay for a loss on the other."""
    gate = compose(["fastmri"]).reconstruction.gate
    kinds = ["CORPD_FBK", "CORPDFS_FBK"] * 12

    def table(*gains: float) -> list[Row]:
        return [
            {"case": f"c{i}", "acquisition": kind, "acceleration": 4.0, "nominal_acceleration": 4.0}
            | {name: value + gains[i % 2] + 0.01 * (i % 3) for name, value in (("psnr", 30.0), ("ssim", 0.8))}
            | {name: value - gains[i % 2] / 100 for name, value in (("nmse", 0.02), ("mae", 0.02))}
            | {"zero_filled_psnr": 20.0}
            for i, kind in enumerate(kinds)
        ]

    people = {f"c{i}": f"c{i}" for i in range(24)}
    even, paid = (
        decide(
            ReconstructionFacts,
            gate,
            Evidence(table(*gains), people, {"compressed-sensing": table(-2, -2)}, champion=table(0, 0)),
        )
        for gains in ((0.3, 0.31), (2.0, -0.5))
    )
    assert even.outcome == "promoted"
    assert paid.outcome == "refused"
    assert [reason.split(":")[0] for reason in paid.reasons] == [
        "psnr not inferior to champion by 0.1 where acquisition CORPDFS_FBK"
    ]


def test_figures_of_the_network() -> None:
    challenger = rows(*spread(30))
    figures = {"latency_ms": 40.0, "parameters": 1e6}
    rule = {"metric": "latency_ms", "ceiling": 50.0}
    assert gate(rule, challenger, figures=figures).outcome == "promoted"
    assert gate(rule, challenger, figures=figures, patients=9).outcome == "undecided"
    slow = gate({**rule, "ceiling": 30.0}, challenger, figures=figures)
    assert (slow.outcome, slow.reasons) == ("refused", ["latency_ms at most 30: it is 40"])
    assert gate({"metric": "megabytes", "ceiling": 1.0}, challenger, figures=figures).outcome == "refused"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_lost_breaks_a_rule(value: float) -> None:
    damaged = rows(*spread(30)[:-1], value)
    rule = {"metric": "psnr", "floor": 1.0}
    lost = gate(rule, damaged)
    assert lost.reasons == ["psnr at least 1: 1 of 8 cases have no value, for which another method has one"]
    assert lost.rulings[0].worst == [7]
    no_reference = [{"case": row["case"], "psnr": row["psnr"]} for row in damaged]
    assert gate(rule, no_reference, rows(*spread(20))).outcome == "refused"


def test_a_case_without_a_value_for_anybody_is_left_out() -> None:
    ours, theirs = rows(*spread(30), math.nan, baseline=math.nan), rows(*spread(20, 0.2), math.nan)
    found = ruling({"metric": "psnr", "superior_to": "champion"}, ours, theirs)
    assert (found.outcome, found.cases) == ("holds", 8)
    nothing = rows(*[math.nan] * 8, baseline=math.nan)
    assert gate({"metric": "psnr", "floor": 1.0}, nothing).outcome == "undecided"


def test_missing_columns_and_cases_break_a_rule() -> None:
    floor, superior = {"metric": "psnr", "floor": 1.0}, {"metric": "psnr", "superior_to": "champion"}
    assert gate(floor, rows(*spread(1), metric="mse")).reasons == [
        "psnr at least 1: psnr is missing in the challenger's results"
    ]
    assert "site is missing" in gate({**floor, "where": {"site": "a"}}, rows(*spread(9))).reasons[0]
    assert "not scored on the same cases" in gate(superior, rows(*spread(30)), rows(*spread(20)[1:])).reasons[0]
    assert gate(superior, rows(*spread(30)), rows(*spread(1), metric="mse")).outcome == "undecided"


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        ("all", "none", "refused"),
        ("all", "some", "refused"),
        ("all", "unknown", "refused"),
        ("all", "all", "promoted"),
        ("some", "none", "promoted"),
        ("all", None, "promoted"),
    ],
)
def test_generated_data_alone_replaces_nothing_real(ours: str, theirs: str | None, outcome: str) -> None:
    generated = {"challenger": ours, **({"champion": theirs} if theirs else {})}
    champion = rows(*spread(20)) if theirs else None
    rule = {"metric": "psnr", "floor": 1.0}
    assert gate(rule, rows(*spread(30)), champion, generated=generated).outcome == outcome
    told = gate(rule, rows(*spread(30)), champion, generated=generated, generated_over_real=True)
    assert told.outcome == "promoted"


def test_rules_about_a_champion_alone_promote_nobody() -> None:
    alone = gate({"metric": "psnr", "superior_to": "champion"}, rows(*spread(30)))
    assert (alone.outcome, alone.rulings[0].outcome) == ("undecided", "not applicable")
    assert alone.reasons == ["no rule applies: there is no champion and no other rule"]


def test_one_broken_rule_refuses_and_one_open_rule_leaves_it_undecided() -> None:
    challenger = rows(*spread(30))
    patients = {str(row["case"]): str(row["case"]) for row in challenger}

    def outcome(*floors: float) -> str:
        rules = [RuleConfig(metric="psnr", floor=floor) for floor in floors]
        return decide(OtherFacts, GateConfig(rules=rules, patients=8), Evidence(challenger, patients)).outcome

    assert [outcome(1, 2), outcome(1, 30), outcome(30, 99)] == ["promoted", "undecided", "refused"]


def test_what_the_task_does_not_have_is_a_mistake_in_the_parameters() -> None:
    with pytest.raises(ConfigError, match=r"reconstruction\.gate\.rules\.0\.metric: no metric 'dice'"):
        gate({"metric": "dice", "floor": 0.0}, rows(1))
