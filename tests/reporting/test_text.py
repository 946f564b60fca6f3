import pytest

from condswin.config.profiles import compose
from condswin.reporting.text import case_rows, shown
from condswin.tasks.facts import Facts
from condswin.tasks.loading import load


def test_cases_stand_worst_first_with_undefined_ones_last() -> None:
    task = load(Facts, "segmentation", compose(["demo"]))
    blank = dict.fromkeys(task.metrics, "nan")
    rows = [
        {**blank, "case": "volume-2", "liver_dice": "0.9", "other": "1"},
        {**blank, "case": "volume-10", "liver_dice": "0.51234", "tumour_hd95": "12.5", "other": "1"},
        {**blank, "case": "volume-3", "other": "1"},
    ]
    table = case_rows(task, [{"tumour_hd95": "nan", **row} for row in rows])
    assert [row["case"] for row in table] == ["volume-10", "volume-2", "volume-3"]
    assert table[0]["liver_dice"] == "0.512"
    assert table[0]["tumour_hd95"] == "12.500"
    assert table[2]["liver_dice"] == "-"
    assert "other" not in table[0]
    assert list(table[0])[:2] == ["case", "liver_dice"]
    assert case_rows(task, []) == []


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [("psnr", 31.276, "31.28"), ("ssim", 0.72, "0.720"), ("mae", 1.234e-6, "1.23e-06"), ("mae", 0.0, "0.000")],
)
def test_small_values_are_not_shown_as_nothing(metric: str, value: float, text: str) -> None:
    assert shown(metric, value) == text
