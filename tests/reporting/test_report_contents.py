import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from condswin.config.root import Config
from condswin.networks.watching import Decision
from condswin.registry.interval import Interval, interval
from condswin.reporting.cases import shown_cases
from condswin.reporting.figures import colour_bar, pixels_uri, svg
from condswin.reporting.networks import heavy_shares
from condswin.reporting.page import gain_table, group_tables, interval_text, rule_table, score_tables
from condswin.reporting.scores import Scores, verdict
from condswin.reporting.text import shown, span
from condswin.tasks.pictures import Pictures
from tests.reporting.pages import COMPARISON, DECISION, PATIENTS, panels, scores, task_report, write


def by_patient(values: dict[str, float]) -> np.ndarray:
    people = sorted({*PATIENTS.values()})
    return np.array([np.mean([values[case] for case in PATIENTS if PATIENTS[case] == each]) for each in people])


def test_cases_of_one_patient_count_once() -> None:
    found = scores()
    mean = found.mean("unrolled-swin", "psnr")
    assert mean == interval(by_patient(found.values("unrolled-swin", "psnr")))
    assert mean.patients == 9
    assert len(found.gains("swin", "psnr")) == 9


def test_a_gain_is_positive_where_a_lower_value_is_better() -> None:
    found = scores()
    ours, theirs = found.values("unrolled-swin", "mae"), found.values("zero-filled", "mae")
    gain = found.gain("zero-filled", "mae")
    assert gain.mean == pytest.approx(np.mean(by_patient({case: theirs[case] - ours[case] for case in ours})))
    assert gain.mean > 0


def test_values_that_one_method_lacks_are_left_out_of_its_gains() -> None:
    found = scores()
    rows = [dict(row) for row in found.methods["swin"]]
    rows[4]["psnr"] = math.nan
    changed = Scores(found.facts, PATIENTS, {**found.methods, "swin": rows}, found.references)
    assert changed.gain("swin", "psnr").patients == 8
    assert changed.gain("swin", "fallback") is None


def test_intervals_of_shares_stay_where_shares_can_be() -> None:
    """Those of few patients, of which one differs a lot, reach far beyond."""
    found = scores()
    facts = type("Of", (), {"metrics": {"dice": True}, "further": {}, "ceilings": {}, "shares": ("dice",)})
    dice = [0.0, 0.9, 0.95, 0.93, 0.92, 0.94]
    rows = {
        name: [{"case": f"case-{number}", "dice": value} for number, value in enumerate(values, start=1)]
        for name, values in (("ours", dice), ("theirs", [0.9, 0.91, 0.92, 0.93, 0.94, 0.95]))
    }
    within = Scores(facts, PATIENTS, rows, ["theirs"])  # type: ignore[arg-type]
    unbounded = interval(np.array(dice))
    assert unbounded.low < -0.5
    assert unbounded.high > 1
    assert within.mean("ours", "dice") == unbounded._replace(low=0.0, high=1.0)
    assert within.gain("theirs", "dice").low == -1.0
    # Decibels have no ends.
    assert found.mean("unrolled-swin", "psnr").high > 1


def test_methods_are_told_apart_by_their_intervals() -> None:
    found = verdict(scores(), "psnr")
    assert found.beaten == ["compressed-sensing", "zero-filled"]
    assert found.open == ["swin"]
    assert not found.ahead


def test_the_table_has_every_method_as_a_row_with_the_numbers_of_its_cases() -> None:
    found = scores()
    (table,) = score_tables(found, DECISION)
    assert [row[0].text for row in table.rows] == ["unrolled-swin", "compressed-sensing", "zero-filled", "swin"]
    assert table.columns[1:] == [("psnr", "↑ dB"), ("ssim", "↑"), ("nmse", "↓"), ("mae", "↓ scanner's units")]
    for row in table.rows:
        mean = interval(by_patient(found.values(row[0].text, "psnr")))
        assert row[1].sort == mean.mean
        assert (row[1].text, row[1].below) == (shown("psnr", mean.mean), span("psnr", mean.low, mean.high))
    assert {row[3].below for row in table.rows if row[0].text == "swin"} == {"equal in all 9 patients"}


def test_the_champion_is_among_the_gains_where_the_gate_knew_one() -> None:
    (champion,) = (row for row in gain_table(scores(), DECISION).rows if row[0].text == "champion")
    assert (champion[1].text, champion[1].below, champion[1].mark) == ("-0.50", "-0.90 to -0.10", "broken")
    assert champion[2].text == "none"
    assert "champion" not in [row[0].text for row in gain_table(scores(), None).rows]


def test_every_rule_has_its_estimate_and_interval() -> None:
    table = rule_table(DECISION)
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["psnr superior to zero-filled", "holds", "4", "0", "9", "fine", ""],
        ["psnr superior to champion", "broken", "-0.5", "0", "9", "", "case-3"],
        ["ssim at least 0.5", "not applicable", "", "", "", "nobody asked", ""],
    ]
    assert table.rows[1][2].below == "-0.900 to -0.100"


def test_kinds_of_cases_are_values_or_thirds_and_hold_each_case_once() -> None:
    kinds = scores().kinds()
    assert list(kinds) == ["acquisition", "acceleration"]  # all have one nominal acceleration
    assert list(kinds["acceleration"]) == ["3.5 to 3.8", "3.9 to 4.1", "4.2 to 4.4"]
    for groups in kinds.values():
        assert sorted(case for cases in groups.values() for case in cases) == sorted(PATIENTS)
    table = group_tables(scores())[0]
    assert (table.rows[0][0].text, table.rows[0][0].below) == ("<b>T1</b>", "5 cases, 5 patients")
    # Of so few no interval is told.
    mean = scores().mean("unrolled-swin", "psnr", kinds["acquisition"]["<b>T1</b>"])
    assert (table.rows[0][1].text, table.rows[0][1].below) == (shown("psnr", mean.mean), "")


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (24.041, 24.044, "24.041 to 24.044"),
        (24.0, 25.0, "24.00 to 25.00"),
        (24.04, 24.04, ""),
        (None, None, ""),
        (-math.inf, 3.0, ""),
    ],
)
def test_no_interval_is_told_without_width(low: float | None, high: float | None, text: str) -> None:
    assert span("psnr", low, high) == text


def test_what_has_no_interval_says_why() -> None:
    assert interval_text("psnr", Interval(1.0, -math.inf, math.inf, math.nan, 1)) == "no interval of 1 patient"
    assert interval_text("psnr", Interval(1.0, -math.inf, 2.0, 0.1, 3)) == "no interval of 3 patients"
    assert interval_text("psnr", Interval(1.0, 1.0, 1.0, 0.0, 3)) == "equal in all 3 patients"


def test_the_first_answers_name_what_won_by_how_much_and_what_is_not_known() -> None:
    found = task_report().answers
    assert list(found) == ["Which?", "By how much?", "Sure?", "Safe?", "worst"]
    assert found["Which?"] == ["unrolled-swin: the best of 2 variants by psnr on the validation cases."]
    gain = scores().gain("compressed-sensing", "psnr")
    said = f"Against compressed-sensing: +{gain.mean:.2f} dB ({gain.low:.2f} to {gain.high:.2f})."
    assert said in found["By how much?"]
    assert "Not told apart from swin: the interval holds zero." in found["Sure?"]
    assert found["Safe?"][0] == "The gate's 3 rules: 1 hold, 1 broken, 1 not applicable."
    values = scores().values("unrolled-swin", "psnr")
    worst = min(values, key=values.__getitem__)
    assert found["worst"] == [f"{worst}: psnr {values[worst]:.2f} dB."]
    undecided = task_report(decision=None).answers["Safe?"]
    assert undecided[0].startswith("The gate has not decided yet")
    assert COMPARISON["best"] == "unrolled-swin"


def test_a_page_has_room_for_some_cases_and_first_for_the_slice_that_tells_most() -> None:
    cases = [(f"case-{number}", "") for number in range(10)]
    every = shown_cases(cases, panels, "unrolled-swin")
    assert [case.name for case in every] == [f"case-{number}" for number in range(6)]
    assert every[0].places == ["slice 1 of 3", "slice 2 of 3", "slice 3 of 3"]
    assert every[0].places[every[0].start] == "slice 2 of 3"
    assert [every[0].pictures[place].name for place in every[0].compared] == ["target", "unrolled-swin"]
    one = sum(len(picture.uris[1]) for picture in every[0].pictures)
    few = shown_cases(cases, panels, "unrolled-swin", room=int(2.5 * one))
    assert [(case.name, case.places) for case in few] == [(name, ["slice 2 of 3"]) for name, _ in cases[:2]]
    assert len(shown_cases(cases, panels, "unrolled-swin", room=0)) == 1


def test_pictures_are_told_in_words() -> None:
    case = shown_cases([("case-1", "T2, 4x")], panels, "unrolled-swin")[0]
    assert case.pictures[3].alt == "error of zero-filled of case case-1, slice 2 of 3, T2, 4x"
    assert 'aria-label="Grey levels: the darkest is 0, the brightest 2 (a.u.)"' in case.bars[0]


def test_figures_take_the_colour_and_letters_of_the_page() -> None:
    drawn = svg(colour_bar("a & b", 0, 1, error=False), 'said "so" & <so>')
    assert drawn.startswith('<svg role="img" aria-label="said &quot;so&quot; &amp; &lt;so&gt;"')
    assert "currentColor" in drawn
    assert "#000000" not in drawn
    assert drawn == svg(colour_bar("a & b", 0, 1, error=False), 'said "so" & <so>')
    assert len(pixels_uri(np.zeros((9, 9), np.uint8), error=True)) > 60


def test_shares_tell_which_patches_take_the_heavy_branch() -> None:
    background = np.repeat(np.linspace(0, 1, 6, dtype=np.float32), 4)[None].repeat(24, 0)
    chosen = torch.zeros(1, 6, 6, dtype=torch.bool)
    chosen[..., 4:] = True  # the brightest third
    decision = Decision("encoder.0.0", "feed_forward", chosen.float(), chosen, 1.0)
    query = decision._replace(chosen=None)
    shares = heavy_shares([background], [[decision, query]])
    assert shares["intensity"] == [0, 0, 1]
    assert sum(shares["edge"]) == pytest.approx(1)
    assert heavy_shares([background], [[query]]) == {}


def test_the_page_is_one_file_and_acts_upon_no_text(tmp_path: Path) -> None:
    html = write(tmp_path / "report.html").read_text()
    assert "&lt;b&gt;T1&lt;/b&gt;" in html
    assert "<b>T1" not in html
    assert "<script>bad" not in html
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', html)
    assert "url(http" not in html
    for never in ("- to -", "nan to", "inf to"):
        assert never not in html
    assert not re.findall(r"(?<![\d.])(-?\d+\.\d+) to \1(?![\d.])", html)
    ids = re.findall(r' id="([^"]+)"', html)
    drawn_with = {name for name in ids if not re.fullmatch(r"(image|[a-z])[0-9a-f]{10}", name)}
    assert len(drawn_with) == len([name for name in ids if name in drawn_with])


def test_a_task_that_draws_figures_alone_has_them_on_the_page(tiny: Config, tmp_path: Path) -> None:
    class Plain(Pictures):
        def picture(self, targets: Path, predictions: Path, case: str) -> Figure:
            figure = Figure(figsize=(0.4, 0.3), dpi=100)
            figure.patch.set_facecolor("black" if predictions.name == "swin" else "white")
            return figure

    folders = {"swin": Path("swin"), "classic": Path("classic")}
    (case,) = shown_cases([("a", "")], lambda name: Plain(tiny).panels(tmp_path, folders, name), "swin")
    assert [picture.name for picture in case.pictures] == ["swin", "classic"]
    assert case.pictures[0].uris == [pixels_uri(np.zeros((30, 40, 3), np.uint8), error=False)]
    assert not case.bars
