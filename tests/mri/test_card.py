import json
import re

import numpy as np
import pytest
from scipy.stats import kstwo

from condswin.cli import main
from condswin.config.profiles import write_config
from condswin.errors import BadDataError, BadFileError
from condswin.manifest import CaseRecord, FileRecord, Manifest
from condswin.mri.card import STATISTICS, describe, drift, duplicates, noise_floor, volume_statistics
from condswin.steps.data_card import data_card
from tests.whole import Whole

from .conftest import make_config


@pytest.fixture
def ingest(write_volume, tmp_path):
    """Writes an ingested dataset: files of given noise and acquisition with a manifest."""

    def make(name, volumes, **changes):
        folder, task, records = tmp_path / name, Whole("reconstruction", make_config()), []
        for number in range(volumes):
            split = ("train", "val", "test")[number % 3]
            write_volume(f"file{number}.h5", folder=folder / split, seed=number, **changes)
        for case in task.find_cases(folder).cases:
            info, path = task.check_case(case), f"{case.folder}/{case.name}.h5"
            files = {"kspace": FileRecord.of(folder, path)}
            records.append(CaseRecord(case.name, case.folder, info.patient, files, dict(info.details)))
        Manifest("reconstruction", records, {}, []).write(folder)
        return folder

    return make


def test_page_and_numbers(ingest, tmp_path):
    card = data_card(make_config(), ingested=ingest("data", 4), out=tmp_path / "card")
    assert card == json.loads((tmp_path / "card" / "card.json").read_text())
    assert card["cases"] == 4
    assert card["splits"]["train"] == {"cases": 2, "patients": 1, "slices": 6}
    assert card["acquisitions"] == {"CORPD_FBK": 4}
    assert card["shapes"] == {"42 x 31": 4}
    assert card["targets"] == {"20 x 22": 4}
    assert len(card["statistics"]["snr_db"]) == 4
    html = (tmp_path / "card" / "card.html").read_text()
    assert html.count("data:image/png;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:)', html)
    for secret in ("PERSON", "SECRET", "QUIXOTE", "SERIAL", "2017"):
        assert secret not in re.sub(r"base64,[^\"]+", "", html) + json.dumps(card)


def test_signal_to_noise(tmp_path, write_volume):
    """A disc of one on Rayleigh noise, whose rms is the square root of two times sigma."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    disc = (np.hypot(y, x) < 0.6) + 0.01 * (draw.standard_normal((128, 128)) + 1j * draw.standard_normal((128, 128)))
    target = np.abs(disc).astype(np.float32)[None]
    path = write_volume(
        rows=140, columns=130, slices=1, datasets={"reconstruction_esc": target}, attributes={"max": target.max()}
    )
    statistics = volume_statistics(path)
    assert statistics["snr_db"] == pytest.approx(20 * np.log10(1 / (0.01 * np.sqrt(2))), abs=1.0)
    assert statistics["background"] == pytest.approx(1 - np.pi * 0.36 / 4, abs=0.03)
    assert (statistics["rows"], statistics["columns"], statistics["slices"]) == (140, 130, 1)


def described(folder):
    return describe(folder, Manifest.read(folder, "reconstruction"))


def test_no_drift_from_itself_nor_from_the_like(ingest):
    first, second = described(ingest("a", 9)), described(ingest("b", 6))
    assert max(drift(first, first).values()) == 0
    assert max(drift(first, second).values()) < noise_floor(9, 6)


@pytest.mark.parametrize(
    ("change", "statistic"),
    [
        ({"attributes": {"acquisition": "CORPDFS_FBK"}}, "acquisitions"),
        ({"scale": 1e-3}, "log_maximum"),
        ({"columns": 33}, "columns"),
    ],
)
def test_drift_is_found_and_named(ingest, change, statistic):
    assert drift(described(ingest("a", 3)), described(ingest("b", 3, **change)))[statistic] == 1


def test_drift_is_the_largest_distance_of_the_cumulative_distributions():
    draw = np.random.default_rng(0)
    one, other = draw.normal(0, 1, 23).round(1), draw.normal(0.5, 1, 17).round(1)  # with ties
    cards = [
        {"statistics": {name: list(values) for name in STATISTICS}, "acquisitions": {"a": 1}, "cases": 1}
        for values in (one, other)
    ]
    expected = max(abs(np.mean(one <= value) - np.mean(other <= value)) for value in (*one, *other))
    assert drift(*cards)["rows"] == pytest.approx(expected, abs=1e-15)


def test_drift_is_on_the_page_and_in_the_exit_status(ingest, tmp_path, monkeypatch):
    (tmp_path / "reference.json").write_text(json.dumps(described(ingest("a", 12))))
    write_config(make_config(), tmp_path / "params.yaml", comment="test")
    monkeypatch.chdir(tmp_path)
    data = ingest("b", 12, columns=33)
    arguments = ["data-card", "--data", str(data), "--reference", "reference.json", "--out", "card"]
    monkeypatch.setattr("sys.argv", ["condswin", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert '<td>columns</td><td class="n bad">1.000' in (tmp_path / "card" / "card.html").read_text()
    found = json.loads((tmp_path / "card" / "card.json").read_text())["drift"]
    assert found["exceeded"] is True
    assert found["largest"] == found["distances"]["columns"] == 1


def test_noise_floor_is_the_one_percent_point():
    # Two samples of n behave like one of n / 2.
    assert noise_floor(2000, 2000) == pytest.approx(kstwo.ppf(0.99, 1000), rel=0.02)


def record(name, split, content):
    return CaseRecord(name, split, "p", {"kspace": FileRecord(f"{split}/{name}.h5", 1, content)}, {})


def test_duplicates_within_a_split_are_listed_across_splits_refused():
    same = [record("a", "train", "1"), record("b", "train", "1"), record("c", "test", "2")]
    assert duplicates(Manifest("reconstruction", same, {}, [])) == [["a", "b"]]
    with pytest.raises(BadDataError, match=r"a \(train\), d \(test\)"):
        duplicates(Manifest("reconstruction", [same[0], record("d", "test", "1")], {}, []))


def test_refuses_a_reference_that_is_none(ingest, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(BadFileError, match="not a data card"):
        data_card(make_config(), ingested=ingest("a", 3), out=tmp_path / "c", reference=tmp_path / "x.json")
    assert not (tmp_path / "c").exists()
