"""Damaged NIfTI pairs, each read in a process of its own under limits of time and memory above an idle one.

`python -m tests.ct.fuzz 1000` tries as many mutants; the test tries 312. A mutant depends on its number alone.
"""

import gzip
import json
import os
import signal
import struct
import sys
import tempfile
import traceback
from pathlib import Path

import nibabel as nib
import numpy as np

from condswin.ct.cases import check_case, find_cases
from condswin.ct.nifti import read_geometry, read_image, read_labels
from condswin.errors import BadFileError

from .fakes import AFFINES, anatomy

#: Memory above that of a process that reads nothing, all of it libraries: a CUDA build of torch alone has 500 MB.
SECONDS, MEGABYTES = 5, 100
REFUSED, CRASHED = 10, 11
#: What a reader must never accept, whatever the details.
MUST_REFUSE = {
    "bomb",
    "hollow",
    "empty",
    "late",
    "4D",
    "no slices",
    "not finite",
    "labels",
    "background",
    "shape",
    "affine",
    "gzip",
    "behind",
}
_DTYPES = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 511, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 9999]
_ZEROS = gzip.compress(bytes(1 << 26), 9)  # gzip members may follow one another: 64 MiB each


def base():
    """Bytes of a good volume and its segmentation, uncompressed."""
    hu, labels = anatomy((21, 18, 7))
    return [nib.Nifti1Image(array, AFFINES["lits"]).to_bytes() for array in (hu, labels)]


def patched(data, offset, kind, *values):
    patch = struct.pack("<" + kind, *values)
    return data[:offset] + patch + data[offset + len(patch) :]


def mutate(number):
    """Kind of damage, and the bytes of both files as they lie on disk, with their suffix."""
    rng = np.random.default_rng([20, number])
    pair = base()
    which, zipped = int(rng.integers(2)), bool(rng.integers(2))
    kinds = list(KINDS)
    kind = kinds[number % len(kinds)]
    files = KINDS[kind](rng, pair, which)
    if kind in PACKED:
        return kind, ".nii.gz", files
    if zipped:
        files = [gzip.compress(bytes(data), 1) for data in files]
        if kind == "cut" and rng.random() < 0.5:
            files[which] = files[which][: rng.integers(len(files[which]))]
    return kind, ".nii.gz" if zipped else ".nii", files


def replaced(pair, which, data):
    return [bytes(data) if place == which else other for place, other in enumerate(pair)]


def cut(rng, pair, which):
    return replaced(pair, which, pair[which][: rng.integers(len(pair[which]))])


def flipped(rng, pair, which):
    data = bytearray(pair[which])
    for place in rng.integers(0, 352, rng.integers(1, 7)):  # the header decides about everything
        data[place] = rng.integers(256)
    return replaced(pair, which, data)


def dtype(rng, pair, which):
    code, bits = rng.choice(_DTYPES), rng.choice([0, 1, 8, 16, 24, 32, 64, 128, -8])
    return replaced(pair, which, patched(pair[which], 70, "2h", code, bits))


def sizes(rng, pair, which):
    values = rng.choice([-1, 0, 1, 2, 7, 18, 21, 300, 5000, 32767, -32768], 7)
    return replaced(pair, which, patched(pair[which], 40, "8h", rng.integers(-1, 9), *values))


def scaling(rng, pair, which):
    values = rng.choice([0, 1, -1, 1e-30, 1e30, 3e38, np.nan, np.inf, -np.inf, 1000, 0.5], 2)
    return replaced(pair, which, patched(pair[which], 112, "2f", *values))


def position(rng, pair, which):
    values = rng.choice([0, 1, -1, 1e-30, 1e30, np.nan, np.inf, 2.5, 0.7, 90], 18)
    codes, both = rng.integers(-1, 6, 2), rng.random() < 0.5  # both alike, so that it is their position that counts
    files = [
        patched(patched(patched(data, 252, "2h", *codes), 256, "18f", *values), 76, "8f", *values[:8]) for data in pair
    ]
    return files if both else replaced(pair, which, files[which])


def noise(rng, pair, which):
    data = bytearray(rng.bytes(rng.integers(1, 4000)))
    if rng.random() < 0.7:
        data[:4] = rng.choice([348, 540]).astype(rng.choice(["<i4", ">i4"])).tobytes()
    return replaced(pair, which, data)


def swapped(rng, pair, which):
    header = nib.Nifti1Header(pair[which][:348]).as_byteswapped()
    return replaced(pair, which, header.binaryblock + pair[which][348:])


def gzipped(rng, pair, which):
    files = [gzip.compress(data, 6) for data in pair]
    data, how = bytearray(files[which]), rng.integers(5)
    if how == 0:
        data[-8:] = bytes(rng.integers(0, 256, 8, dtype=np.uint8))  # checksum and length
    elif how == 1:
        data = data[: -int(rng.integers(1, 9))]
    elif how == 2:
        data += rng.bytes(50)  # neither another member nor padding
    elif how == 3:
        data[2:10] = rng.bytes(8)
        data[2] = 7  # no such method
    else:
        data = bytearray(b"\x1f\x8b") + rng.bytes(200)
    return replaced(files, which, data)


def noisy_gzip(rng, pair, which):
    files = [gzip.compress(data, 6) for data in pair]
    data = bytearray(files[which])
    for place in rng.integers(0, len(data), rng.integers(1, 5)):
        data[place] ^= 1 << rng.integers(8)
    return replaced(files, which, data)


def bomb(rng, pair, which):
    """An honest file that goes on with gigabytes of zeros."""
    files = [gzip.compress(data) for data in pair]
    return replaced(files, which, files[which] + _ZEROS * int(rng.integers(20, 60)))


def hollow(rng, pair, which):
    """A header that tells the truth about more zeros than any scan has voxels."""
    deep = int(rng.integers(2049, 6000))
    files = [gzip.compress(patched(data, 40, "4h", 3, 1024, 1024, deep)[:352]) + _ZEROS * (deep // 16) for data in pair]
    return files if which else replaced([gzip.compress(data) for data in pair], 1, files[1])


def empty(rng, pair, which):
    """A scan of which all but a slice is padding, and no liver: as large as scans are, and no bomb."""
    deep, size = 257, 512
    slice_ = rng.integers(-1000, 200, (size, size)).astype(np.int16).tobytes()
    shape = patched(pair[0], 40, "4h", 3, size, size, deep)[:352], patched(pair[1], 40, "4h", 3, size, size, deep)[:352]
    return [gzip.compress(shape[0] + slice_) + _ZEROS * 2, gzip.compress(shape[1] + bytes(size**2)) + _ZEROS]


def late(rng, pair, which):
    """Voxels that begin behind gigabytes of nothing."""
    offset = float(rng.integers(1 << 25, 1 << 31))
    files = [gzip.compress(data) for data in pair]
    return replaced(files, which, gzip.compress(patched(pair[which], 108, "f", offset)) + _ZEROS * 30)


def image(rng, pair, which, change, place=None):
    """One of both files with other voxels."""
    which = which if place is None else place
    loaded = nib.Nifti1Image.from_bytes(pair[which])
    changed = nib.Nifti1Image(change(np.asarray(loaded.dataobj)), loaded.affine)
    return replaced(pair, which, changed.to_bytes())


def spoiled(value):
    def change(array):
        array = array.astype(np.float32)
        array[3, 4, 5] = value
        return array

    return change


def moved(rng, pair, which):
    places = 280 + 4 * rng.integers(0, 12)
    old = struct.unpack_from("<f", pair[which], places)[0]
    return replaced(pair, which, patched(pair[which], places, "f", old + rng.choice([-1, 1]) * rng.uniform(1.5, 6)))


def turned(rng, pair, which):
    """Labels of the same grid in another orientation."""
    orientation = np.column_stack([rng.permutation(3), rng.choice([-1, 1], 3)])
    return [pair[0], nib.Nifti1Image.from_bytes(pair[1]).as_reoriented(orientation).to_bytes()]


def forms(rng, pair, which):
    """Headers of which one form is none, or none is one, or two differ; both alike or one alone."""
    sform = rng.choice([0, 1, np.nan, 1e-8, 3e38], 12) if rng.random() < 0.5 else np.eye(4)[:3].ravel()
    size, over = rng.choice([0, -0.8, 0.8, 5, np.nan], 3), 1 + rng.choice([0, 1e-6, 1e-4, 0.1, np.nan])
    codes = rng.integers(-1, 7, 2)

    def spoil(data):
        data = patched(data, 252, "2h", *codes)
        data = patched(data, 280, "12f", *sform) if rng.random() < 0.7 else data
        data = patched(data, 80, "3f", *size) if rng.random() < 0.3 else data
        return patched(data, 256, "6f", 0, 0, over, 3, -4, 5) if rng.random() < 0.7 else data

    return [spoil(data) for data in pair] if rng.random() < 0.5 else replaced(pair, which, spoil(pair[which]))


def scaled(rng, pair, which):
    """Labels that a slope puts nearly, or not nearly, where they were."""
    step = float(rng.choice([1, 1 / 127, 2 / 255, 3.0518e-5, 0.1])) * (1 + rng.choice([0, 1e-6, 1e-3, 0.3]))
    labels = nib.Nifti1Image.from_bytes(pair[1])
    stored = np.rint(np.asarray(labels.dataobj) / step).astype(rng.choice(["u1", "i2", "u2", "i4", "f4"]))
    return [pair[0], patched(nib.Nifti1Image(stored, labels.affine).to_bytes(), 112, "2f", step, 0)]


def behind(rng, pair, which):
    """A whole gzip stream, and something else."""
    files = [gzip.compress(data, 6) for data in pair]
    return replaced(files, which, files[which] + bytes(int(rng.integers(3000))) + b"!" + rng.bytes(rng.integers(3000)))


def misplaced(rng, pair, which):
    """Labels that lie somewhere else in their image."""
    shift = tuple(int(x) for x in rng.integers(-9, 10, 3))
    return image(rng, pair, 1, lambda array: np.flip(np.roll(array, shift, (0, 1, 2)), int(rng.integers(3))))


KINDS = {
    "cut": cut,
    "flipped": flipped,
    "dtype": dtype,
    "sizes": sizes,
    "scaling": scaling,
    "position": position,
    "noise": noise,
    "swapped": swapped,
    "gzip": gzipped,
    "noisy gzip": noisy_gzip,
    "bomb": bomb,
    "hollow": hollow,
    "empty": empty,
    "late": late,
    "4D": lambda rng, pair, which: image(
        rng, pair, which, lambda array: np.stack([array] * int(rng.integers(2, 4)), -1)
    ),
    "no slices": lambda rng, pair, which: image(rng, pair, which, lambda array: array[:, :, :0]),
    "not finite": lambda rng, pair, which: image(rng, pair, which, spoiled(rng.choice([np.nan, np.inf, -np.inf]))),
    "labels": lambda rng, pair, which: image(rng, pair, 1, spoiled(rng.choice([3, -1, 0.5, 255, 1e9]))),
    "background": lambda rng, pair, which: image(rng, pair, 1, lambda array: array * 0),
    "shape": lambda rng, pair, which: image(rng, pair, which, lambda array: array[: -int(rng.integers(1, 9))]),
    "affine": moved,
    "turned": turned,
    "forms": forms,
    "scaled": scaled,
    "behind": behind,
    "misplaced": misplaced,
}
#: Kinds that give files already compressed.
PACKED = {"gzip", "noisy gzip", "bomb", "hollow", "empty", "late", "behind"}


def read(folder):
    """Checks the pair as ingestion does; what passes must be what nibabel reads."""
    try:
        (case,) = find_cases(folder).cases
        check_case(case)
    except BadFileError as error:
        return REFUSED if error.path.parent == folder and error.reason else CRASHED
    scan, labels = (nib.load(case.files[role]) for role in ("volume", "segmentation"))
    image = read_image(case.files["volume"])
    np.testing.assert_allclose(image.data, scan.get_fdata(dtype=np.float32), rtol=1e-5, atol=1e-3)
    position = read_geometry(case.files["segmentation"]).affine
    turned = labels.as_reoriented(nib.io_orientation(np.linalg.inv(image.geometry.affine) @ position))
    read = read_labels(case.files["segmentation"], like=(image.geometry, "the image"))
    np.testing.assert_array_equal(read.data, np.rint(turned.get_fdata()))
    return 0


def idle_megabytes():
    """Peak memory of a process that reads nothing."""
    if (child := os.fork()) == 0:
        os._exit(0)
    return os.wait4(child, 0)[2].ru_maxrss / 1024


def attempt(number, idle):
    """Outcome of a mutant: its kind, exit status (negative: killed by that signal), memory above idle, last words."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+") as words:
        folder = Path(name)
        kind, suffix, files = mutate(number)
        for role, data in zip(("volume", "segmentation"), files, strict=True):
            (folder / f"{role}-0{suffix}").write_bytes(data)
        if (child := os.fork()) == 0:
            status = CRASHED
            try:
                signal.alarm(SECONDS)
                status = read(folder)
            except BaseException:
                words.write(traceback.format_exc())
                words.flush()
            os._exit(status)
        _, status, usage = os.wait4(child, 0)
        words.seek(0)
        return {
            "number": number,
            "kind": kind,
            "status": os.waitstatus_to_exitcode(status),
            "megabytes": usage.ru_maxrss / 1024 - idle,
            "seconds": usage.ru_utime + usage.ru_stime,
            "words": words.read()[-2000:],
        }


def good(outcome):
    refused = outcome["status"] == REFUSED
    return (refused or (outcome["status"] == 0 and outcome["kind"] not in MUST_REFUSE)) and outcome[
        "megabytes"
    ] < MEGABYTES


def main(count):
    """Prints what went wrong, then counts by kind as JSON."""
    counts = {}
    worst = {"seconds": 0.0, "megabytes": 0.0}
    idle = idle_megabytes()
    for number in range(count):
        outcome = attempt(number, idle)
        result = ("refused" if outcome["status"] == REFUSED else "accepted") if good(outcome) else "wrong"
        if result == "wrong":
            print(json.dumps(outcome), file=sys.stderr)
        tally = counts.setdefault(outcome["kind"], {"accepted": 0, "refused": 0, "wrong": 0})
        tally[result] += 1
        worst = {name: max(value, outcome[name]) for name, value in worst.items()}
    print(json.dumps({"kinds": counts, "worst": worst}))
    return any(tally["wrong"] for tally in counts.values())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
