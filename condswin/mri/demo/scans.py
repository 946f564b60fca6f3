"""Demo data: generated scans in fastMRI's single-coil format, which nothing downstream tells from the real."""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.random import Generator

from condswin.files import atomic_file
from condswin.fourier import ComplexArray, crop_start, fft2c, ifft2c
from condswin.mri.config import DemoMriConfig
from condswin.mri.demo.anatomy import draw_contrast, paint_anatomy
from condswin.mri.demo.phantom import Canvas, Field
from condswin.mri.header import NAMESPACE
from condswin.mri.reading import HEADER, KSPACE
from condswin.tasks.generation import Advance

#: FastMRI's two knee protocols: proton density without and with fat suppression.
ACQUISITIONS = ("CORPD_FBK", "CORPDFS_FBK")
#: Number of the first file of each split folder.
FIRST_FILE = {"singlecoil_train": 1000001, "singlecoil_val": 1002001}

# Every fourth volume is another scan of the patient before, so that splitting by patient has something to do.
_REPEAT = 4


class Scan(NamedTuple):
    """One generated volume.

    Attributes:
        kspace: (slices, 2 * size, width), complex64: the readout is oversampled twofold, as scanners do.
        target: (slices, size, size), float32: magnitude of the image of this k-space, centre crop.
        measured: First and one past the last phase-encoding column measured; the others are zero.
        acquisition: One of `ACQUISITIONS`.
    """

    kspace: ComplexArray
    target: Field
    measured: tuple[int, int]
    acquisition: str


def write_demo(folder: Path, settings: DemoMriConfig, seed: int, advance: Advance) -> None:
    """Writes `singlecoil_train/file*.h5` and `singlecoil_val/file*.h5`; equal settings and seeds give equal bytes.

    Args:
        folder: Where a user's own source would be.
        settings: Numbers of volumes and slices, and the size of the images.
        seed: Of everything; a file depends on this and on its number alone.
        advance: Called after each file.
    """
    counts = {"singlecoil_train": settings.train_volumes, "singlecoil_val": settings.test_volumes}
    files = [(split, place) for split, count in counts.items() for place in range(count)]

    def write(file: tuple[str, int]) -> None:
        split, place = file
        number = FIRST_FILE[split] + place
        owner = number - (place % _REPEAT == _REPEAT - 1)
        patient = hashlib.sha256(f"{seed} {owner}".encode()).hexdigest()
        _write(folder / split / f"file{number}.h5", make_scan(settings, seed, number), patient)

    with ThreadPoolExecutor(cpu_count()) as pool:
        for _ in pool.map(write, files):
            advance()


def make_scan(settings: DemoMriConfig, seed: int, number: int) -> Scan:
    """Generates the volume of one file number."""
    draw = np.random.default_rng([seed, number])
    size, rows = settings.size, 2 * settings.size
    # Odd and even widths in turn.
    width = math.ceil(draw.uniform(1.12, 1.45) * size / 2) * 2 + number % 2
    fat_suppressed = bool(draw.random() < 0.5)
    canvas = Canvas(draw, settings.slices, (rows, width), size)
    paint_anatomy(canvas, draw_contrast(draw, fat_suppressed=fat_suppressed))
    brightness = float(np.quantile(canvas.image, 0.995))
    image = canvas.image * _sensitivity(canvas) * np.exp(1j * _phase(canvas))

    kspace = fft2c(image.astype(np.complex64))
    kspace *= _resolution(draw, kspace.shape[1:])
    measured = _measured(draw, width)
    snr = draw.uniform(60, 120) if fat_suppressed else draw.uniform(100, 250)
    noise = draw.standard_normal((*kspace.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    kspace += noise * np.float32(brightness / snr / math.sqrt(2))
    kspace[..., : measured[0]] = 0
    kspace[..., measured[1] :] = 0
    kspace *= np.float32(10 ** draw.uniform(-4.7, -3.7) / brightness)

    top, left = crop_start(rows, size), crop_start(width, size)
    target = np.abs(ifft2c(kspace)[..., top : top + size, left : left + size])
    return Scan(kspace, target.astype(np.float32), measured, ACQUISITIONS[fat_suppressed])


def _sensitivity(canvas: Canvas) -> Field:
    """A coil's: smooth, and falling off along the readout."""
    draw = canvas.generator
    fall = np.exp(-0.5 * ((canvas.v - draw.uniform(-0.1, 0.1)) / draw.uniform(0.5, 0.75)) ** 2)
    gain: Field = (fall * np.exp(draw.uniform(0.1, 0.35) * canvas.texture(5.0, coherence=0.3))).astype(np.float32)
    return gain


def _phase(canvas: Canvas) -> Field:
    """Of the object, radians: a smooth part (coil, field) and a rougher one (susceptibility, flow)."""
    draw = canvas.generator
    smooth = draw.uniform(0.3, 1.0) * canvas.texture(5.0, coherence=0.5)
    rough = draw.uniform(0.02, 0.12) * canvas.texture(3.0)
    return (smooth + rough + draw.uniform(-np.pi, np.pi)).astype(np.float32)


def _resolution(draw: Generator, shape: tuple[int, int]) -> Field:
    """What thick slices, motion and relaxation during the readout leave of high frequencies: a Gaussian."""
    rows, columns = (np.linspace(-1, 1, length, dtype=np.float32) for length in shape)
    edge = draw.uniform(0.002, 0.03)
    gain: Field = np.exp(np.log(edge) * (rows[:, None] ** 2 + columns**2)).astype(np.float32)
    return gain


def _measured(draw: Generator, width: int) -> tuple[int, int]:
    """Half of the scans leave up to 6 % of the columns at either edge unmeasured, as fastMRI's do."""
    margin = int(draw.uniform(0, 0.06) * width) if draw.random() < 0.5 else 0
    return margin, width - margin


def _write(path: Path, scan: Scan, patient: str) -> None:
    with atomic_file(path) as temporary, h5py.File(temporary, "w") as file:
        file[HEADER] = _header(scan, patient)
        file[KSPACE] = scan.kspace
        file["reconstruction_esc"] = scan.target
        file.attrs["acquisition"] = scan.acquisition
        file.attrs["max"] = float(scan.target.max())
        file.attrs["norm"] = float(np.linalg.norm(scan.target.astype(np.float64)))
        file.attrs["patient_id"] = patient


def _header(scan: Scan, patient: str) -> bytes:
    rows, width = scan.kspace.shape[1:]
    size = scan.target.shape[1]
    first, last = scan.measured

    def space(name: str, x: int, y: int) -> str:
        return (
            f"<{name}><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>"
            f"<fieldOfView_mm><x>{x}</x><y>{y}</y><z>3</z></fieldOfView_mm></{name}>"
        )

    return (
        f'<?xml version="1.0"?><ismrmrdHeader xmlns="{NAMESPACE}">'
        f"<subjectInformation><patientID>{patient}</patientID></subjectInformation>"
        "<experimentalConditions><H1resonanceFrequency_Hz>63871234</H1resonanceFrequency_Hz></experimentalConditions>"
        f"<encoding>{space('encodedSpace', rows, width)}{space('reconSpace', size, size)}"
        "<encodingLimits><kspace_encoding_step_1><minimum>0</minimum>"
        f"<maximum>{last - first - 1}</maximum><center>{width // 2 - first}</center>"
        "</kspace_encoding_step_1></encodingLimits>"
        "<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    ).encode()
