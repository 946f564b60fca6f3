"""The data card of either task: what its pages say, and which references it takes."""

import contextlib
import io
import json
from pathlib import Path

import pytest

from condswin.cli import main
from condswin.config.names import TASKS
from condswin.config.profiles import write_config
from condswin.config.root import Config
from condswin.errors import BadDataError, BadFileError
from condswin.manifest import CaseRecord, FileRecord, Manifest
from condswin.steps.data_card import data_card, duplicates
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest


@pytest.fixture(scope="module", params=TASKS)
def ingested(request: pytest.FixtureRequest, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo data of a task, in a folder of its name."""
    task, folder = request.param, tmp_path_factory.mktemp("ingested")
    section = tiny.task(task).model_copy(update={"source": str(folder / "raw")})
    demo_data(tiny.model_copy(update={task: section}), task, out=folder / "raw")
    ingest(tiny, task, source=str(folder / "raw"), out=folder / task)
    return folder / task


def test_numbers_and_pictures_of_every_statistic(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    card = data_card(tiny, task, ingested=ingested, out=tmp_path / "card")
    assert card == json.loads((tmp_path / "card" / "card.json").read_text())
    assert (card["task"], card["cases"]) == (task, len(Manifest.read(ingested, task).cases))
    assert {len(values) for values in card["statistics"].values()} == {card["cases"]}
    assert {sum(values.values()) for values in card["counts"].values()} == {card["cases"]}
    assert set(card["compared"]) <= set(card["counts"])
    page = (tmp_path / "card" / "card.html").read_text()
    assert page.count("data:image/png;base64,") == (3 if task == "reconstruction" else 2)
    again = data_card(tiny, task, ingested=ingested, out=tmp_path / "again", reference=tmp_path / "card" / "card.json")
    assert again["drift"]["largest"] == 0


def test_references_that_cannot_be_compared_are_named(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    known = data_card(tiny, task, ingested=ingested, out=tmp_path / "card")
    for number, (wrong, said) in enumerate(
        [
            ({}, "not a data card"),
            (known | {"task": "dose"}, f"the data card of dose data, {task} is compared"),
            (known | {"format": 1}, f"run `condswin data-card {task}` of that data again"),
            (known | {"statistics": {"rows": [1.0]}}, "another version of condswin"),
        ]
    ):
        (tmp_path / "x.json").write_text(json.dumps(wrong))
        with pytest.raises(BadFileError, match=said) as caught:
            data_card(tiny, task, ingested=ingested, out=tmp_path / str(number), reference=tmp_path / "x.json")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / str(number)).exists()


def test_a_drifted_card_is_answered_before_it_is_refused(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    write_config(tiny, tmp_path / "params.yaml", comment="")
    known = data_card(tiny, task, ingested=ingested, out=tmp_path / "card")
    known["statistics"] = {name: [value + 1e9 for value in [*values] * 9] for name, values in
                           known["statistics"].items()}  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps(known | {"cases": 9 * known["cases"]}))
    words = ["data-card", task, "--data", str(ingested), "--reference", "x.json", "--out", "again", "--json"]
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(tmp_path), contextlib.redirect_stdout(out):
        patch.setattr("sys.argv", ["condswin", *words, "--set", f"{task}.drift.threshold=0.01"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 3
    assert json.loads(out.getvalue())["card"]["drift"]["exceeded"]


def record(name: str, split: str, content: str, **details: str) -> CaseRecord:
    return CaseRecord(name, split, "p", {"kspace": FileRecord(f"{split}/{name}.h5", 1, content)}, details)


def test_duplicates_within_a_split_are_listed_across_splits_refused() -> None:
    same = [record("a", "train", "1"), record("b", "train", "1"), record("c", "test", "2")]
    assert duplicates(Manifest("reconstruction", same, {}, [])) == [["a", "b"]]
    with pytest.raises(BadDataError, match=r"a \(train\), d \(test\)"):
        duplicates(Manifest("reconstruction", [same[0], record("d", "test", "1")], {}, []))


def test_one_image_in_two_compressions_is_a_duplicate() -> None:
    same = [record("a", "val", "1", image_sha256="x"), record("b", "val", "2", image_sha256="x")]
    assert duplicates(Manifest("segmentation", same, {}, [])) == [["a", "b"]]
