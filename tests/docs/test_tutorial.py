"""The tutorial's commands are run, as they stand, on fewer and smaller scans."""

from pathlib import Path

from tests.cli.calling import condswin
from tests.docs.blocks import ROOT, blocks, commands

PAGE = ROOT / "docs/tutorial.md"
#: All of the page's networks; and a gate that so few patients may pass.
SMALL = (
    *("--set", "reconstruction.demo={train_volumes: 4, test_volumes: 2, slices: 2, size: 32}"),
    *("--set", "reconstruction.train.epochs=1", "--set", "reconstruction.train.batch_size=2"),
    *("--set", "reconstruction.gate={patients: 1, rules: [{metric: psnr, floor: 0.0, of: mean}]}"),
)


def test_every_command_of_the_tutorial_works_in_its_order(tmp_path: Path) -> None:
    said = {}
    for block in blocks(PAGE):
        for program, *arguments in commands(block, tmp_path):
            if program == "condswin":
                small = [*arguments, *SMALL] if arguments[:2] == ["params", "use"] else arguments
                said[" ".join(arguments)] = condswin(*small, cwd=tmp_path)
    assert "promoted: version 1 is champion" in said["promote reconstruction"]
    assert len(list((tmp_path / "predictions").glob("*.png"))) == 2
    page = PAGE.read_text()
    for shown in ("params.yaml", "report/card-reconstruction/card.html", "report/report.html"):
        assert f"`{shown}`" in page
        assert (tmp_path / shown).exists()
