import json
import re

import numpy as np
import pytest

from condswin.cli import main
from condswin.config.profiles import write_config
from condswin.drift import drift, limit_of
from condswin.manifest import CaseRecord, FileRecord, Manifest
from condswin.mri.card import volume_statistics
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
    card = data_card(make_config(), "reconstruction", ingested=ingest("data", 4), out=tmp_path / "card")
    assert card == json.loads((tmp_path / "card" / "card.json").read_text())
    assert card["cases"] == 4
    assert card["splits"]["train"] == {"cases": 2, "patients": 1, "slices": 6}
    assert card["counts"] == {
        "acquisition": {"CORPD_FBK": 4},
        "k-space, rows x columns": {"42 x 31": 4},
        "target, rows x columns": {"20 x 22": 4},
    }
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


@pytest.fixture
def described(ingest, tmp_path):
    """Makes the card of such a dataset."""
    return lambda name, volumes, **changes: data_card(
        make_config(), "reconstruction", ingested=ingest(name, volumes, **changes), out=tmp_path / f"{name}-card"
    )


def test_no_drift_from_itself_nor_from_the_like(described):
    first, second = described("a", 9), described("b", 6)
    assert max(drift(first, first).values()) == 0
    assert max(drift(first, second).values()) <= limit_of(first, second, 0)


@pytest.mark.parametrize(
    ("change", "statistic"),
    [
        ({"attributes": {"acquisition": "CORPDFS_FBK"}}, "acquisition"),
        ({"scale": 1e-3}, "log_maximum"),
        ({"columns": 33}, "columns"),
    ],
)
def test_drift_is_found_and_named(described, change, statistic):
    assert drift(described("a", 3), described("b", 3, **change))[statistic] == 1


def test_drift_is_on_the_page_and_in_the_exit_status(ingest, described, tmp_path, monkeypatch):
    described("a", 12)
    write_config(make_config(), tmp_path / "params.yaml", comment="test")
    monkeypatch.chdir(tmp_path)
    data = ingest("b", 12, columns=33)
    arguments = ["data-card", "reconstruction", "--data", str(data), "--reference", "a-card/card.json", "--out", "card"]
    monkeypatch.setattr("sys.argv", ["condswin", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert '<td>k-space columns</td><td class="n bad">1.000' in (tmp_path / "card" / "card.html").read_text()
    found = json.loads((tmp_path / "card" / "card.json").read_text())["drift"]
    assert found["exceeded"] is True
    assert found["largest"] == found["distances"]["columns"] == 1
