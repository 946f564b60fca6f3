"""Small files in fastMRI's layout, odd sizes among them, and the real ones where they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from condswin.config.reading import parse_config
from condswin.config.root import Config
from condswin.mri.info import VolumeInfo, check_volume
from condswin.mri.reading import VolumeReader
from tests.whole import Whole

REPOSITORY = Path(__file__).resolve().parents[2]

HEADER = b"""<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientName>QUIXOTE^JANE</patientName><patientID>SECRET-17</patientID></subjectInformation>
<studyInformation><studyDate>2017-03-04</studyDate></studyInformation>
<acquisitionSystemInformation><systemVendor>Vendor</systemVendor><deviceID>SERIAL-4711</deviceID>
<systemFieldStrength_T>2.89</systemFieldStrength_T></acquisitionSystemInformation>
<encoding><encodedSpace><matrixSize><x>42</x><y>31</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>20</x><y>22</y><z>1</z></matrixSize></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>26</maximum><center>13</center>
</kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""

Writer = Callable[..., Path]


def centred_image(kspace: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Magnitude image in float64, written down independently of the product's code."""
    axes = (-2, -1)
    image = np.fft.fftshift(
        np.fft.ifft2(np.fft.ifftshift(kspace.astype(np.complex128), axes=axes), norm="ortho"), axes=axes
    )
    top, left = (image.shape[-2] - size[0]) // 2, (image.shape[-1] - size[1]) // 2
    return np.abs(image[..., top : top + size[0], left : left + size[1]])


def check(path: Path) -> VolumeInfo:
    """What ingestion finds in a single-coil file, or refuses."""
    with VolumeReader(path) as reader:
        return check_volume(reader)


@pytest.fixture
def write_volume(tmp_path: Path) -> Writer:
    """Writes a sound file; datasets and attributes are replaced by keyword, or left out when None."""

    def write(
        name: str = "file1000001.h5",
        *,
        slices: int = 3,
        rows: int = 42,
        columns: int = 31,
        size: tuple[int, int] = (20, 22),
        scale: float = 1e-5,
        seed: int = 0,
        folder: Path | None = None,
        datasets: dict[str, Any] | None = None,
        attributes: dict[str, Any] | None = None,
        header: bytes | str | None = HEADER,
    ) -> Path:
        draw = np.random.default_rng(seed)
        noise = draw.standard_normal((slices, rows, columns, 2), dtype=np.float32).view(np.complex64)[..., 0]
        fall = np.exp(-np.hypot(np.linspace(-4, 4, rows)[:, None], np.linspace(-4, 4, columns)))
        kspace = (noise * fall * scale).astype(np.complex64)
        target = centred_image(kspace, size).astype(np.float32)
        content = {"kspace": kspace, "reconstruction_esc": target, "ismrmrd_header": header, **(datasets or {})}
        attrs = {
            "acquisition": "CORPD_FBK",
            "patient_id": "PERSON-42",
            "max": float(target.max()),
            **(attributes or {}),
        }
        path = (folder or tmp_path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for key, value in content.items():
                if value is not None:
                    file[key] = value
            for key, value in attrs.items():
                if value is not None:
                    file.attrs[key] = value
        return path

    return write


def make_config(**reconstruction: Any) -> Config:
    values = {
        "reconstruction": {"variants": {"swin": {}}, **reconstruction},
        "segmentation": {"variants": {"swin": {}}},
    }
    return parse_config(values, origin="test")


@pytest.fixture
def task() -> Whole:
    return Whole("reconstruction", make_config(demo={"train_volumes": 2, "test_volumes": 1, "slices": 2, "size": 32}))


@pytest.fixture
def real_files(real_data: Path) -> list[Path]:
    return sorted((real_data / "mri").glob("*.h5"))
