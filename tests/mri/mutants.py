"""Spoilt files by number, and a process that reads a range of them: `python mutants.py FOLDER FIRST LAST`.

Each number gives the same file everywhere. The process prints a line per file, before and after reading it, so that
whoever started it knows which file killed it.
"""

import json
import resource
import signal
import sys
import time
import zlib
from pathlib import Path

import h5py
import numpy as np

HEADER = (
    b'<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace><matrixSize>'
    b"<x>48</x><y>40</y><z>1</z></matrixSize></encodedSpace><reconSpace><matrixSize><x>24</x><y>24</y><z>1</z>"
    b"</matrixSize></reconSpace></encoding></ismrmrdHeader>"
)
SHAPE = (4, 48, 40)
#: What a file may cost, memory above what the process has after its imports: a CUDA build of torch alone has 500 MB.
SECONDS, MEGABYTES = 5, 100
#: Address space above that, so that a file which asks for more gets an error, not the machine.
ADDRESS_SPACE = 4 << 30


def write_sound(path, draw):
    """A sound file in one of the layouts that HDF5 has for the same content."""
    kspace = draw.standard_normal((*SHAPE, 2)).astype(np.float32).view(np.complex64)[..., 0]
    chunks, compression, shuffle = [
        (None, None, False),
        ((1, 48, 40), None, False),
        ((2, 24, 20), "gzip", True),
        ((1, 48, 40), "lzf", False),
    ][draw.integers(4)]
    with h5py.File(path, "w", libver=["earliest", "v110", "latest"][draw.integers(3)]) as file:
        options = {"chunks": chunks, "compression": compression, "shuffle": shuffle or None}
        checked = {"fletcher32": True} if chunks and draw.random() < 0.3 else {}
        stored = store_kspace(kspace, draw)
        if chunks and stored.ndim == 4:
            options["chunks"] = (chunks[0], 1, *chunks[1:]) if stored.shape[1] == 1 else (*chunks, 2)
        file.create_dataset("kspace", data=stored, **options, **checked)
        target = np.abs(kspace[:, 12:36, 8:32])
        file.create_dataset("reconstruction_esc", data=target)
        file["ismrmrd_header"] = HEADER if draw.random() < 0.5 else np.bytes_(HEADER)
        file.attrs.update({"acquisition": "CORPD_FBK", "patient_id": "PERSON", "max": target.max()})


def store_kspace(kspace, draw):
    """K-space as one of the tools stores it that share its meaning."""
    kind = draw.integers(6)
    if kind == 0:
        return kspace.astype(np.complex128)
    if kind == 1:
        return np.stack([kspace.real, kspace.imag], axis=-1)
    if kind == 2:
        fields = np.empty(kspace.shape, [("real", ">f4"), ("imag", ">f4")])
        fields["real"], fields["imag"] = kspace.real, kspace.imag
        return fields
    return kspace[:, None] if kind == 3 else kspace


def truncate(path, draw):
    content = path.read_bytes()
    path.write_bytes(content[: draw.integers(1, len(content))])


def flip_structure(path, draw):
    _flip(path, draw, 4096)


def flip_anywhere(path, draw):
    _flip(path, draw, None)


def _flip(path, draw, region):
    content = bytearray(path.read_bytes())
    # Values that break lengths and counts, beside random ones.
    for at in draw.integers(0, min(region or len(content), len(content)), draw.integers(1, 24)):
        content[at] = int(draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.integers(256)]))
    path.write_bytes(bytes(content))


def cut_out(path, draw):
    """A block lost or zeroed, as after an interrupted copy."""
    content = bytearray(path.read_bytes())
    start = int(draw.integers(len(content)))
    length = int(draw.integers(1, 4096))
    if draw.random() < 0.5:
        del content[start : start + length]
    else:
        content[start : start + length] = bytes(min(length, len(content) - start))
    path.write_bytes(bytes(content))


def wrong_type(path, draw):
    name = ["kspace", "reconstruction_esc"][draw.integers(2)]
    records = [
        np.dtype([("r", "f4"), ("j", "f4")]),
        np.dtype([("real", "i4"), ("imag", "i4")]),
        np.dtype([("r", "f4"), ("i", "f4"), ("w" * 4000, "f4")]),
        np.dtype([("real", "f4", (2,)), ("imag", "f4", (2,))]),
    ]
    kinds = [
        "i2",
        "u8",
        "f8",
        "c16",
        "S9",
        "f2",
        "?",
        *records,
        h5py.string_dtype(),
        h5py.vlen_dtype("f4"),
        h5py.ref_dtype,
    ]
    with h5py.File(path, "a") as file:
        shape = file[name].shape
        del file[name]
        kind = kinds[draw.integers(len(kinds))]
        if name == "reconstruction_esc" and kind in ("f8", "f2"):
            kind = "c8"
        file.create_dataset(name, shape, kind)


def wrong_shape(path, draw):
    name = ["kspace", "reconstruction_esc"][draw.integers(2)]
    shapes = [(), (0, 48, 40), (48, 40), (4, 2, 48, 40), (4, 1, 1, 48, 40), (9, 48, 40), (1,) * 32]
    with h5py.File(path, "a") as file:
        kind = file[name].dtype
        del file[name]
        file[name] = np.ones(shapes[draw.integers(len(shapes))], kind)


def huge_shape(path, draw):
    name = ["kspace", "reconstruction_esc", "ismrmrd_header"][draw.integers(3)]
    shape = [(2**20, 2**20, 2**12), (2**40, 48, 40), (4, 2**30, 40), (2**60, 1, 1)][draw.integers(4)]
    with h5py.File(path, "a") as file:
        kind = {"kspace": "c8", "reconstruction_esc": "f4", "ismrmrd_header": "S4096"}[name]
        del file[name]
        file.create_dataset(name, shape, kind, chunks=tuple(min(length, 16) for length in shape))


def compression_bomb(path, draw):
    name = ["kspace", "reconstruction_esc"][draw.integers(2)]
    slices = int(draw.integers(16, 64))
    with h5py.File(path, "a") as file:
        kind = file[name].dtype
        del file[name]
        data = file.create_dataset(name, (slices, 512, 256), kind, chunks=(1, 512, 256), compression="gzip")
        packed = zlib.compress(np.ones((512, 256), kind).tobytes())
        for at in range(slices):
            data.id.write_direct_chunk((at, 0, 0), packed)


def link_out(path, draw):
    name = ["kspace", "reconstruction_esc", "ismrmrd_header"][draw.integers(3)]
    other = path.with_suffix(".other")
    with h5py.File(other, "w") as file:
        file[name] = np.ones(SHAPE, np.complex64)
    links = [
        h5py.ExternalLink(str(other), f"/{name}"),
        h5py.ExternalLink("/etc/passwd", "/"),
        h5py.ExternalLink(str(path), f"/{name}"),
        h5py.SoftLink(f"/{name}"),
        h5py.SoftLink("/nowhere"),
        h5py.SoftLink("/copy"),
    ]
    with h5py.File(path, "a") as file:
        file.move(name, "copy")
        file[name] = links[draw.integers(len(links))]


def stored_elsewhere(path, draw):
    raw = path.with_suffix(".raw")
    raw.write_bytes(bytes(int(np.prod(SHAPE)) * 8))
    with h5py.File(path, "a") as file:
        del file["kspace"]
        if draw.random() < 0.5:
            file.create_dataset("kspace", SHAPE, np.complex64, external=[(str(raw), 0, raw.stat().st_size)])
        else:
            layout = h5py.VirtualLayout(SHAPE, np.complex64)
            layout[:] = h5py.VirtualSource(str(path.with_suffix(".other")), "kspace", SHAPE)
            file.create_virtual_dataset("kspace", layout)


def bad_header(path, draw):
    raw = [
        b"<!DOCTYPE a [<!ENTITY b 'ha'>]><a>&b;</a>",
        b"<a>" * 200_000,
        b"<a>" + b"<encoding>" * 20_000 + b"</encoding>" * 20_000 + b"</a>",
        b"<a/>" + b" " * (2 << 20),
        b"\xff\xfe",
        HEADER.replace(b"<x>48</x>", b"<x>-1</x>"),
        np.arange(9),
    ][draw.integers(7)]
    with h5py.File(path, "a") as file:
        del file["ismrmrd_header"]
        file["ismrmrd_header"] = raw


def bad_values(path, draw):
    name = ["kspace", "reconstruction_esc"][draw.integers(2)]
    with h5py.File(path, "a") as file:
        values = file[name][()]
        if draw.random() < 0.3:
            values = np.zeros_like(values)
        else:
            part = values[values.dtype.names[draw.integers(2)]] if values.dtype.names else values
            largest = 1e300 if part.dtype.itemsize > 8 else np.inf  # too large for single precision
            part[(draw.integers(4), *[0] * (part.ndim - 1))] = [np.nan, np.inf, -largest][draw.integers(3)]
        file[name][...] = values


#: Mutations, and whether what comes out may by chance still be a sound file.
MUTATIONS = {
    truncate: False,
    flip_structure: True,
    flip_anywhere: True,
    cut_out: True,
    wrong_type: False,
    wrong_shape: False,
    huge_shape: False,
    compression_bomb: False,
    link_out: False,
    stored_elsewhere: False,
    bad_header: False,
    bad_values: False,
}


def make_mutant(number, folder):
    """Writes mutant `number`; returns its path and mutation."""
    draw = np.random.default_rng([4711, number])
    mutation = list(MUTATIONS)[number % len(MUTATIONS)]
    path = folder / f"mutant{number}.h5"
    write_sound(path, draw)
    mutation(path, draw)
    return path, mutation


def main(folder, first, last):
    from condswin.errors import BadFileError
    from condswin.mri.config import UndersampleConfig
    from condswin.mri.undersample import prepare_undersampled

    address_space = ADDRESS_SPACE + (own_memory("VmSize") << 10)
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    imports = own_memory("VmHWM")
    settings = UndersampleConfig(center_fractions=[0.1])
    for number in range(first, last):
        path, mutation = make_mutant(number, folder)
        out = folder / f"out{number}" / path.name
        print(json.dumps({"number": number, "mutation": mutation.__name__}), flush=True)
        # Of processor time, since a busy machine is not the file's fault; a wait for nothing ends too.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(20 * SECONDS)
        started = time.process_time()
        try:
            prepare_undersampled(path, out, settings)
            outcome = "read"
        except BadFileError as error:
            outcome = str(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        report = {
            "number": number,
            "mutation": mutation.__name__,
            "outcome": outcome,
            "seconds": time.process_time() - started,
            "megabytes": (own_memory("VmHWM") - imports) / 1024,
            "left": sorted(entry.name for entry in out.parent.iterdir()) if out.parent.exists() else [],
        }
        print(json.dumps(report), flush=True)
        for leftover in [*folder.glob(f"mutant{number}.*"), *folder.glob(f"out{number}/*")]:
            leftover.unlink()


def own_memory(name):
    """KiB of this process alone: the peak that `getrusage` gives is inherited from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
