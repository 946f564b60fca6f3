import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from condswin.config.names import TASKS
from condswin.config.profiles import compose
from condswin.config.root import Config
from condswin.networks.saving import ModelSpec
from condswin.networks.watching import Decision
from condswin.registry.interval import Interval, interval
from condswin.reporting.cases import shown_cases
from condswin.reporting.data import method_facts
from condswin.reporting.figures import colour_bar, pixels_uri, svg
from condswin.reporting.networks import heavy_shares
from condswin.reporting.page import (
    gain_table,
    group_tables,
    interval_text,
    position_table,
    routing_forests,
    rule_table,
    score_tables,
)
from condswin.reporting.plots import curve_rows, gain_rows, score_rows, write_table
from condswin.reporting.scores import Scores, routed, verdict
from condswin.reporting.text import ends, shown
from condswin.tasks.facts import Facts
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures
from tests.reporting.pages import DECISION, PATIENTS, panels, scores, write


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
    facts = type("Of", (), {"metrics": {"dice": True}, "further": {}, "ceilings": {}, "ranges": {"dice": (0.0, 1.0)}})
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
    two = Scores(facts, PATIENTS, {name: each[:2] for name, each in rows.items()}, ["theirs"])  # type: ignore[arg-type]
    assert not np.isfinite([two.mean("ours", "dice").low, two.gain("theirs", "dice").high]).any()
    # Decibels have no ends.
    assert found.mean("unrolled-swin", "psnr").high > 1


def test_methods_are_told_apart_by_their_intervals() -> None:
    found = verdict(scores(), "psnr")
    assert found.beaten == ["compressed-sensing", "zero-filled"]
    assert found.open == ["swin"]
    assert not found.ahead


def test_the_table_has_every_method_as_a_row_with_the_numbers_of_its_cases() -> None:
    found = scores()
    (table,) = score_tables(found, DECISION, label="chosen", chosen={"unrolled-swin": 27.5, "swin": 27.0})
    assert [row[0].text for row in table.rows] == ["unrolled-swin", "compressed-sensing", "zero-filled", "swin"]
    heads = [
        ("PSNR", "↑ dB"),
        ("SSIM", "↑"),
        ("NMSE", "↓"),
        ("MAE", "↓ the file's units"),
        ("PSNR, validation", "↑ dB"),
    ]
    assert [column[:2] for column in table.columns[1:]] == heads
    assert table.columns[1].meaning == found.facts.meaning("psnr") != ""
    # The choice is told by its cases, the best value of a column wherever it is.
    assert [row[0].below for row in table.rows] == ["chosen", "reference method", "reference method", "variant"]
    assert [row[5].text for row in table.rows] == ["27.50", "none", "none", "27.00"]
    assert [[cell.mark for cell in row[1:3]] for row in table.rows] == [["", "most"], ["", ""], ["", ""], ["most", ""]]
    for row in table.rows:
        mean = interval(by_patient(found.values(row[0].text, "psnr")))
        assert row[1].sort == mean.mean
        assert (row[1].text, row[1].below) == (shown("psnr", mean.mean), ends("psnr", mean.low, mean.high))
    assert {row[3].below for row in table.rows if row[0].text == "swin"} == {"equal in all 9 patients"}


def test_the_champion_is_among_the_gains_where_the_gate_knew_one() -> None:
    (champion,) = (row for row in gain_table(scores(), DECISION).rows if row[0].text == "champion")
    assert (champion[1].text, champion[1].below, champion[1].mark) == ("-0.50", "-0.90 to -0.10", "broken")
    assert champion[2].text == "none"
    assert "champion" not in [row[0].text for row in gain_table(scores(), None).rows]


def test_variants_with_routers_are_set_against_the_same_networks_without() -> None:
    networks = {
        "light": "conditional-light",
        "ours": "swin",
        "wider": "swin",
        "unrolled-light": "unrolled-conditional-light",
        "unrolled": "unrolled-swin",
        "unet": "unet",
    }
    assert routed(networks) == {"light": "ours", "unrolled-light": "unrolled"}
    assert routed({"light": "conditional-light", "unrolled": "unrolled-swin"}) == {}
    found = scores()
    drawn = routing_forests(found, None, {"compressed-sensing": "swin"})
    assert len(drawn) == 4
    gain = found.gain("swin", "psnr", "compressed-sensing")
    bounds = f"{gain.mean:.2f} dB ({gain.low:.2f} to {gain.high:.2f})"
    assert f"Forest plot of what routing gains in PSNR: compressed-sensing {bounds}." in drawn[0]
    assert gain.high < 0
    assert routing_forests(found, None, {}) == []


def test_every_method_is_told_in_a_sentence() -> None:
    spec = ModelSpec("reconstruction", "a", "conditional-light", "demo", 1, 1, {"heads": (2, 4)})
    facts = load(Facts, "reconstruction", compose(["demo"]))
    told = method_facts(["a", "compressed-sensing", "unheard-of"], {"a": spec}, facts)
    assert list(told) == ["a", "compressed-sensing"]
    assert told["a"].endswith("that a light router (softmax) picks. Preset demo, heads (2, 4).")
    for name in TASKS:
        facts = load(Facts, name, compose(["demo"]))
        assert {*facts.baselines, facts.reference_method} - {""} == {*facts.methods}


def test_false_lesions_stand_beside_the_metrics() -> None:
    facts = load(Facts, "segmentation", compose(["demo"]))
    rows = [{"case": f"case-{number}", "liver_dice": 0.9, "lesions_false": number} for number in range(10)]
    methods = {"swin": rows, "active-contour": rows}
    first, *_ = score_tables(Scores(facts, PATIENTS, methods, ["active-contour"]), None, label="", chosen={})
    assert [column.name for column in first.columns] == ["method", "Liver Dice", "False lesions"]


def test_every_rule_has_its_estimate_and_interval() -> None:
    table = rule_table(DECISION, scores().facts)
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["PSNR superior to zero-filled", "holds", "4.00", "0", "9", "fine", ""],
        ["PSNR superior to champion", "broken", "-0.50", "0", "9", "", "case-3"],
    ]
    assert table.rows[1][2].below == "-0.90 to -0.10"


def test_a_rule_s_interval_ends_where_its_metric_does_and_says_why_it_is_open() -> None:
    text = "mean 0.7; fewer than 8 patients decide nothing; the mean itself falls short"
    rule = {"rule": "liver_dice at least 0.9", "outcome": "undecided", "text": text, "patients": 6}
    rule |= {"estimate": 0.7, "low": -0.6, "high": 1.2}
    gain = rule | {"rule": "liver_dice superior to active-contour", "estimate": -0.2, "low": -1.9, "high": 0.04}
    decision = {**DECISION, "rules": [rule, gain]}
    table = rule_table(decision, load(Facts, "segmentation", compose(["demo"])))
    assert [row[2].below for row in table.rows] == ["0.000 to 1.000", "-1.000 to 0.040"]
    assert table.rows[0][0].text == "Liver Dice at least 0.9"
    assert table.rows[0][1].below == "too few patients, the mean falls short"
    assert "why" not in [column.name for column in table.columns]


def test_kinds_of_cases_are_values_or_thirds_and_hold_each_case_once() -> None:
    kinds = scores().kinds()
    # True accelerations scatter around one nominal one, and nine patients make no two groups of eight.
    assert list(kinds) == ["acquisition"]
    rows = [dict(row) for row in scores().methods["unrolled-swin"]]
    free = [{name: value for name, value in row.items() if name != "nominal_acceleration"} for row in rows]
    found = replace(scores(), methods={**scores().methods, "unrolled-swin": free})
    assert "acceleration" not in found.kinds()
    assert list(replace(found, least=3).kinds()["acceleration"]) == ["3.5 to 3.8", "3.9 to 4.1", "4.2 to 4.4"]
    for groups in kinds.values():
        assert sorted(case for cases in groups.values() for case in cases) == sorted(PATIENTS)
    table = group_tables(scores())[0]
    assert (table.rows[0][0].text, table.rows[0][0].below) == ("<b>T1</b>", "5 cases, 5 patients")
    # Of so few no interval is told, and the table is folded.
    assert table.folded
    assert "fewer than 8 patients tell nothing" in table.caption
    assert not group_tables(replace(scores(), least=5))[0].folded
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
    assert ends("psnr", low, high) == text


def test_what_has_no_interval_says_why() -> None:
    assert interval_text("psnr", Interval(1.0, -math.inf, math.inf, math.nan, 1)) == "no interval of 1 patient"
    assert interval_text("psnr", Interval(1.0, -math.inf, 2.0, 0.1, 3)) == "no interval of 3 patients"
    assert interval_text("psnr", Interval(1.0, 1.0, 1.0, 0.0, 3)) == "equal in all 3 patients"


def test_a_page_has_room_for_some_cases_and_first_for_the_slice_that_tells_most() -> None:
    cases = [(f"case-{number}", "") for number in range(10)]
    every = shown_cases(cases, panels, "unrolled-swin")
    assert [case.name for case in every] == [f"case-{number}" for number in range(6)]
    assert every[0].total == 3
    assert every[0].places == ["slice 1 of 3", "slice 2 of 3", "slice 3 of 3"]
    assert every[0].places[every[0].start] == "slice 2 of 3"
    assert [every[0].pictures[place].name for place in every[0].compared] == ["target", "unrolled-swin"]
    first = [*(picture.uris[1] for picture in every[0].pictures), *(picture.uris[0] for picture in every[0].whole)]
    one = sum(map(len, first))
    few = shown_cases(cases, panels, "unrolled-swin", room=int(2.5 * one))
    assert [(case.name, case.places) for case in few] == [(name, ["slice 2 of 3"]) for name, _ in cases[:2]]
    assert len(shown_cases(cases, panels, "unrolled-swin", room=0)) == 1


def test_pictures_are_told_in_words() -> None:
    case = shown_cases([("case-1", "T2, 4x")], panels, "unrolled-swin")[0]
    assert case.pictures[3].alt == "error of zero-filled of case case-1, slice 2 of 3, T2, 4x"
    assert 'aria-label="Grey levels: the darkest is 0, the brightest 2 (a.u.)"' in case.bars[0]
    assert re.findall(r">([\d.]+)</text>", case.bars[0]) == ["0", "1", "2"]
    assert "the darkest is 0, the brightest 40 (% of white)" in case.bars[1]
    assert "error, % of white" in case.bars[1]
    assert [picture.alt for picture in case.whole] == ["Whole case case-1, lesions by unrolled-swin: 1 false"]


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


def test_slices_are_told_by_the_third_of_the_case_that_they_lie_in() -> None:
    grid = position_table(scores(), "as they lie")
    assert grid is not None
    assert [row[0].text for row in grid.rows] == ["first third", "middle third", "last third"]
    # Of nine patients: the first two cases are one's, and count half each.
    first = (0.5 + sum(range(2, 10))) / 9
    assert [row[1].sort for row in grid.rows] == pytest.approx([20 + first, 30, 25 - first])
    assert position_table(replace(scores(), slices={}), "") is None


def test_tables_for_dvc_have_a_row_per_point(tmp_path: Path) -> None:
    found = scores()
    gains = gain_rows(found)
    assert [row["against"] for row in gains[:3]] == ["compressed-sensing", "zero-filled", "swin"]
    assert gains[0]["gain"] == pytest.approx(found.gain("compressed-sensing", "psnr").mean)
    history = [{"epoch": "0", "train/loss": "0.5", "val/volume_psnr": ""}, {"epoch": "1", "train/loss": "0.25"}]
    curves = curve_rows({"swin": history}, found.facts)
    assert curves == [
        {"epoch": epoch, "variant": "swin", "measure": "train/loss", "value": value}
        for epoch, value in ((1, 0.5), (2, 0.25))
    ]
    write_table(tmp_path / "curves.csv", curves)
    assert (tmp_path / "curves.csv").read_text().splitlines()[1] == "1,swin,train/loss,0.5"
    assert len(score_rows(found)) == 16
