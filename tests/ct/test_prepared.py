import h5py
import numpy as np
import pytest

from condswin.ct.prepared import open_prepared, read_slices
from condswin.errors import BadFileError


def test_neighbours_are_channels_and_edges_repeat(tmp_path):
    with h5py.File(tmp_path / "case.h5", "w") as file:
        file["image"] = np.arange(5, dtype=np.float16)[:, None, None] * np.ones((1, 2, 3), np.float16)
        for neighbours in (0, 1, 2, 7):
            stacked = read_slices(file, 0, 5, neighbours)
            assert stacked.shape == (5, 1 + 2 * neighbours, 2, 3)
            assert stacked.dtype == np.float32
            for index in range(5):
                expected = [min(max(index + step, 0), 4) for step in range(-neighbours, neighbours + 1)]
                assert stacked[index, :, 0, 0].tolist() == expected
                np.testing.assert_array_equal(read_slices(file, index, index + 1, neighbours)[0], stacked[index])


def test_damaged_prepared_files_are_named(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    h5py.File(tmp_path / "other.h5", "w").close()
    for name, reason in (("text.h5", "not readable"), ("none.h5", "not readable"), ("other.h5", "not a prepared CT")):
        with pytest.raises(BadFileError, match=reason), open_prepared(tmp_path / name):
            pass
