from pathlib import Path
from typing import ClassVar

import matplotlib.figure
import pytest

from condswin.config.profiles import compose
from condswin.networks.saving import ModelSpec
from condswin.reporting.model_card import LONGEST, Card, worst_pictures
from condswin.tasks.facts import Row
from condswin.tasks.pictures import Pictures
from tests.registry.toy import SMALL, ToyFacts, ToyServing

CONFIG = compose(["demo"])
SUMMARY = {"mean": 28.394, "std": 1.0, "low": 27.36, "high": 29.4, "cases": 4}
MISSING = {"mean": None, "std": None, "low": None, "high": None, "cases": 0}
COMPARED = {
    "data_sha256": "d" * 64,
    "best": "swin",
    "chosen_on": "val",
    "variants": {"swin": {"test": {"psnr": SUMMARY, "mse": MISSING, "zero-filled": {"psnr": SUMMARY}}}},
}
ROWS: list[Row] = [
    {"case": f"Jane Doe {number}", "psnr": float(number), "mse": 1.0, "site": site, "size": float(number)}
    for number, site in ((3, "north"), (1, "south"), (2, "south"), (4, "south"))
]


def card(**changes: object) -> Card:
    provenance = {"generated": "some", "seen": {"pixel": [0.5, 0.7, 0.9]}, "parameters": {"data": {"mask": "random"}}}
    spec = ModelSpec("reconstruction", "a_b*", "swin", "demo", 1, 1, SMALL, provenance)
    lineage = {"git_commit": "c" * 40}
    return Card(ToyFacts(CONFIG), ToyServing(CONFIG), spec, COMPARED, lineage, **changes)  # type: ignore[arg-type]


def test_a_card_says_what_for_how_well_where_not_and_from_what() -> None:
    text = card(rows=ROWS, counts={"train": 7}, test_generated="all", pictures={"worst-1.png": b""}).text()
    assert text.startswith("# reconstruction: a_b\\*\n")
    assert "Takes arrays (.npy). Not a medical device" in text
    assert "data of which some is generated. All test cases are generated too. Cases: 7 train." in text
    assert "| metric | network | zero-filled |\n|---|---|---|\n| psnr | 28.39 (27.36 to 29.4) | 28.39" in text
    assert "| mse | – | – |" in text
    assert "| site south | 3 | 2.333 (1 to 4) | 1 |" in text
    assert "| size above 2.5 | 2 | 3.5 (3 to 4) |" in text
    assert "pixel 0.5 to 0.9 mm" in text
    assert f"- git_commit: {'c' * 40}" in text
    assert "![worst-1.png](pictures/worst-1.png)" in text
    assert "Jane" not in text


def test_what_is_not_at_hand_is_left_out() -> None:
    text = card().text()
    assert "Subgroups" not in text
    assert "worst" not in text
    assert "Cases:" not in text


@pytest.mark.parametrize("length", [10, 20000])
def test_a_description_fits_into_mlflow(length: int) -> None:
    long = Card(**{**vars(card(rows=ROWS)), "lineage": {f"tag{number}": "x" * 90 for number in range(length // 10)}})
    text = long.description()
    assert len(text) <= LONGEST
    assert text.endswith("The whole card is README.md in the package.")
    assert "### Scores" in text


class Drawn(Pictures):
    titles: ClassVar[list[matplotlib.figure.Figure]] = []

    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        figure = matplotlib.figure.Figure(figsize=(1, 1))
        figure.suptitle(case)
        self.titles.append(figure)
        return figure

    def slices(self, shown: object) -> matplotlib.figure.Figure:
        raise NotImplementedError


def test_pictures_of_the_worst_do_not_name_them() -> None:
    drawn = worst_pictures(ToyFacts(CONFIG), Drawn(CONFIG), ROWS, Path(), Path())
    assert list(drawn) == ["worst-1.png", "worst-2.png"]
    assert all(content.startswith(b"\x89PNG") and b"Jane" not in content for content in drawn.values())
    titles = [figure.get_suptitle() for figure in Drawn.titles]
    assert titles == ["worst test case by psnr: 1", "second worst test case by psnr: 2"]
