"""Hours on a card by arithmetic, and the recipes' figures in the docs."""

import json
import re
from pathlib import Path

import pytest

from condswin.config.profiles import compose, use
from condswin.config.root import Config
from condswin.steps.bench_hours import bench_hours
from condswin.training.feeding import Card
from tests.cli.calling import condswin

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "recipes.md"


def test_hours_follow_from_flops_slices_epochs_and_the_card(tiny: Config, tmp_path: Path) -> None:
    def hours(**others: object) -> float:
        given = {"slices": 100, "size": (32, 48), "card": Card(2.0, 0.25), **others}
        return bench_hours(others.pop("config", tiny), "reconstruction", ["swin"], out=None, **{
            key: value for key, value in given.items() if key != "config"})["swin"].hours  # type: ignore[arg-type]  # fmt: skip

    out = tmp_path / "hours.json"
    found = bench_hours(tiny, "reconstruction", [], slices=100, size=(32, 48), card=Card(2.0, 0.25), out=out)
    assert list(found) == list(tiny.reconstruction.variants)
    once = found["swin"]
    assert once.epochs == tiny.reconstruction.train.epochs
    assert once.hours == pytest.approx(once.flops * 3 * 100 * once.epochs / 0.5e12 / 3600)
    assert json.loads(out.read_text())["hours"]["swin"]["hours"] == once.hours
    assert hours(slices=300) == pytest.approx(3 * once.hours)
    assert hours(card=Card(4.0, 0.5)) == pytest.approx(once.hours / 4)
    train = tiny.reconstruction.train.model_copy(update={"activation_checkpointing": True})
    again = tiny.model_copy(update={"reconstruction": tiny.reconstruction.model_copy(update={"train": train})})
    assert hours(config=again) == pytest.approx(once.hours * 4 / 3)


@pytest.mark.parametrize(
    ("profile", "task", "slices", "size"),
    [("fastmri", "reconstruction", 31268, (320, 368)), ("lits", "segmentation", 41000, (320, 320))],
)
def test_the_page_has_what_the_command_prints(profile: str, task: str, slices: int, size: tuple[int, int]) -> None:
    (each,) = bench_hours(
        compose([profile]), task, [], slices=slices, size=size, card=Card(989, 0.02), out=None
    ).values()
    total = each.flops * each.passes * each.slices * each.epochs / 1e15
    row = (
        f"| `{profile}` | {each.parameters:,} | {each.flops / 1e9:.2f} | {each.passes} | {slices:,}, {each.epochs} | "
        f"{total:,.0f} | {each.hours:.2f} |"
    )
    page = PAGE.read_text()
    assert row in page
    columns = f" --columns {size[1]}" if size[1] != size[0] else ""
    assert f"--train {task} --slices {slices} --size {size[0]}{columns} --card-tflops 989 --utilisation 0.02" in page
    assert f"{each.hours / 15:.2f} hours" in page or f"{each.hours / 15:.2f} hours, with" in page


def test_both_profiles_of_fastmri_cost_the_same() -> None:
    rows = re.findall(r"\| `fastmri[^`]*` \|(.*)\n", PAGE.read_text())
    assert len(rows) == 2
    assert rows[0] == rows[1]
    one, other = (compose([name]).reconstruction for name in ("fastmri", "fastmri-8x"))
    assert one.train == other.train
    assert one.variants == other.variants


def test_on_the_command_line(tmp_path: Path) -> None:
    use(["demo", "tiny"], tmp_path / "params.yaml")
    command = ["bench", "swin", "--train", "segmentation", "--slices", "1000", "--size", "48"]
    shown = condswin(*command, "--card-tflops", "100", cwd=tmp_path)
    assert "used at 30%; 48 x 48 pixels" in shown
    for wrong, message in (
        (command, "--slices computes hours on a card; give its --card-tflops"),
        ([*command, "--card-tflops", "1", "--knob", "workers=0"], "and no --knob"),
        (["bench", "swin", "--train", "segmentation", "--knob", "workers"], "--knob workers: give a setting"),
        (["bench", "swin", "--slices", "10"], "name its task with --train"),
        (["bench", "swin", "--train", "segmentation", "--override", "patch=2"], "with --train, use --set"),
        (
            ["bench", "swin", "--train", "segmentation", "--columns", "64"],
            "--columns is the width of a slice of --slices",
        ),
    ):
        assert message in condswin(*wrong, cwd=tmp_path, code=2)
