import os
from pathlib import Path

import numpy as np
import pytest

from condswin.errors import BadFileError
from condswin.mri import volumes
from condswin.mri.config import UndersampleConfig
from condswin.mri.undersample import prepare_full, prepare_undersampled
from condswin.mri.volumes import read_volumes


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Which files are opened from here on; with a cache folder of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths: list[Path] = []

    class Recording(volumes.VolumeReader):
        def __init__(self, path):
            paths.append(path)
            super().__init__(path)

    monkeypatch.setattr(volumes, "VolumeReader", Recording)
    return paths


@pytest.fixture
def prepared(write_volume, tmp_path):
    files = [tmp_path / "test" / "PERSON-42.h5", tmp_path / "test" / "full.h5"]
    prepare_undersampled(write_volume(), files[0], UndersampleConfig(center_fractions=[0.16]))
    prepare_full(write_volume(), files[1])
    return files


def equal(one, other):
    return all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in zip(one, other, strict=True))


def test_unchanged_files_are_opened_once(opened, prepared):
    first = read_volumes(prepared)
    assert opened == prepared
    second = read_volumes(prepared)
    assert opened == prepared
    assert all(map(equal, first, second))
    assert first[0].sampled.sum() > 0
    assert first[1].sampled is None
    assert (first[0].slices, first[0].kspace, first[0].size) == (3, (42, 31), (20, 22))


def test_a_changed_file_is_noticed(opened, prepared, write_volume):
    before = read_volumes(prepared)
    prepare_undersampled(write_volume(), prepared[0], UndersampleConfig(accelerations=[2], center_fractions=[0.3]))
    after = read_volumes(prepared)
    assert opened == [*prepared, prepared[0]]
    assert after[0].sampled.sum() > before[0].sampled.sum()
    # Other bytes of the same number, as a copy over it would leave.
    os.utime(prepared[1], ns=(0, 0))
    read_volumes(prepared)
    assert opened[-1] == prepared[1]
    # Other bytes of the same number and time, as a copy with its times beside it, put in its place, would leave.
    copy = prepared[1].with_name("copy")
    copy.write_bytes(prepared[1].read_bytes())
    os.utime(copy, ns=(0, 0))
    copy.replace(prepared[1])
    read_volumes(prepared)
    assert opened[-2:] == 2 * [prepared[1]]


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', "not JSON"])
def test_a_damaged_memory_costs_time_only(opened, prepared, content):
    expected = read_volumes(prepared)
    (memory,) = (Path(os.environ["XDG_CACHE_HOME"]) / "condswin").iterdir()
    assert "PERSON" not in memory.read_text()
    memory.write_text(content)
    assert all(map(equal, read_volumes(prepared), expected))


def test_without_a_place_to_remember_files_are_opened_again(opened, prepared, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    for _ in range(2):
        read_volumes(prepared)
    assert opened == 2 * prepared


def test_a_file_without_target_is_refused_and_not_remembered(opened, prepared, write_volume):
    bad = write_volume(datasets={"reconstruction_esc": None})
    for _ in range(2):
        with pytest.raises(BadFileError, match="has no target image"):
            read_volumes([bad])
