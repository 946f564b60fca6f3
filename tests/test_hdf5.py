from pathlib import Path

import h5py
import numpy as np
import pytest

from condswin.hdf5 import create_slices


@pytest.mark.parametrize("filters", [{}, {"compression": "gzip"}])
def test_a_flipped_bit_is_noticed_in_its_slice_alone(filters: dict[str, str], tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 255, (3, 40, 50), dtype=np.uint8)
    path = tmp_path / "volume.h5"
    with h5py.File(path, "w") as file:
        dataset = create_slices(file, "image", values.shape, values.dtype, **filters)
        dataset[:] = values
        at = dataset.id.get_chunk_info(1)
    whole = bytearray(path.read_bytes())
    whole[at.byte_offset + at.size // 2] ^= 1
    path.write_bytes(whole)
    with h5py.File(path) as file:
        assert (file["image"][0] == values[0]).all()
        with pytest.raises(OSError, match="read data"):
            file["image"][1]
        assert (file["image"][2] == values[2]).all()
