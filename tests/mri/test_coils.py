import h5py
import numpy as np
import pytest

from condswin.config.profiles import compose
from condswin.errors import BadDataError, BadFileError
from condswin.mri.card import volume_statistics
from condswin.mri.coils import fit_weights, open_volume
from condswin.mri.config import UndersampleConfig
from condswin.mri.info import check_volume
from condswin.mri.metrics import volume_metrics
from condswin.mri.scoring import score_case
from condswin.mri.source import ReconstructionSource
from condswin.mri.undersample import prepare_undersampled
from condswin.networks.saving import ModelSpec, save_model
from condswin.steps.predict import predict

from .conftest import centred_image, check, make_config


@pytest.fixture
def multicoil(write_volume):
    """Five slices seen by three coils with smooth sensitivities."""
    rows, columns = 42, 31
    draw = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    image = np.abs(draw.standard_normal((5, 1, rows, columns))) * (np.hypot(y, x) < 0.6)
    centres = [(0.7, 0), (-0.5, 0.6), (-0.5, -0.6)]
    coils = np.stack([np.exp(-((y - a) ** 2) - (x - b) ** 2 + 2j * a * x) for a, b in centres])
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image * coils, axes=axes), norm="ortho"), axes=axes)
    full = np.sqrt((np.abs(image * coils) ** 2).sum(axis=1))
    target = full[:, 11:31, 4:26].astype(np.float32)
    return write_volume(
        datasets={
            "kspace": kspace.astype(np.complex64),
            "reconstruction_esc": None,
            "reconstruction_rss": target,
        }
    ), target


def test_refused_unless_asked_for(multicoil):
    path, _ = multicoil
    with pytest.raises(BadFileError, match=r"reconstruction\.ingest.multicoil to combine"):
        check(path)


def test_combined_reads_like_a_single_coil(multicoil):
    path, target = multicoil
    with open_volume(path, "combine") as reader:
        info = check_volume(reader)
        kspace, image = reader.read("kspace"), reader.read("reconstruction_esc", 1, 3)
    assert (info.shape, info.target, info.target_shape) == ((5, 42, 31), "reconstruction_esc", (5, 20, 22))
    assert kspace.dtype == np.complex64
    np.testing.assert_allclose(image, centred_image(kspace, (20, 22))[1:3], rtol=1e-3, atol=1e-5)
    # One receiver cannot see what three do, but comes close to their image.
    with open_volume(path, "combine") as reader:
        error = reader.read("reconstruction_esc") - target
    with h5py.File(path) as file:
        single = [np.linalg.norm(centred_image(file["kspace"][:, c], (20, 22)) - target) for c in range(3)]
    assert np.linalg.norm(error) < 0.6 * min(single)


def test_weights_are_found_where_they_exist():
    """A target that is the magnitude of a weighted sum is met exactly."""
    draw = np.random.default_rng(3)
    kspace = draw.standard_normal((2, 3, 16, 16, 2)).astype(np.float32).view(np.complex64)[..., 0]
    kspace[:, 1:] *= 0.2
    weights = np.array([1, 0.3j, -0.2 + 0.1j])
    target = centred_image(np.einsum("scyx,c->syx", kspace, weights), (12, 12))
    found = fit_weights(kspace, (12, 12), target)
    # A common phase is free.
    found = found * np.exp(-1j * np.angle(found[0]))
    np.testing.assert_allclose(found, weights, atol=0.02)


def test_prepared_file_is_single_coil(multicoil, tmp_path):
    path, _ = multicoil
    prepare_undersampled(path, tmp_path / "out.h5", UndersampleConfig(center_fractions=[0.16]), "combine")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["kspace"].shape == (5, 42, 31)
        assert set(file) == {"kspace", "mask", "reconstruction_esc", "zero_filled", "ismrmrd_header"}


@pytest.mark.parametrize(
    ("datasets", "reason"),
    [
        ({"reconstruction_rss": None, "ismrmrd_header": None}, "neither a target nor a reconstructed matrix"),
        ({"reconstruction_rss": np.ones((4, 20, 22), np.float32)}, "has 4 slices, kspace 5"),
        ({"reconstruction_rss": np.ones((5, 20, 40), np.float32)}, "larger than the image of kspace"),
        ({"kspace": np.full((5, 2, 42, 31), np.nan, np.complex64)}, "NaN"),
        ({"kspace": np.full((5, 2, 42, 31), 1e300, np.complex128)}, "up to 1e\\+300"),
        ({"mask": np.arange(31) % 4 == 0}, "leaves out frequency zero"),
    ],
)
def test_refuses_what_cannot_be_combined(write_volume, datasets, reason):
    content = {
        "kspace": np.ones((5, 2, 42, 31), np.complex64),
        "reconstruction_esc": None,
        "reconstruction_rss": np.ones((5, 20, 22), np.float32),
    }
    with pytest.raises(BadFileError, match=reason):
        open_volume(write_volume(datasets={**content, **datasets}), "combine")


def emulated(path, *, without=(), mask=None, scale=1.0):
    """What the combined receiver saw, up to its phase, of the file with some things left out."""
    with h5py.File(path, "a") as file:
        for name in without:
            del file[name]
        if mask is not None:
            file["kspace"][...] = file["kspace"][()] * mask
            file["mask"] = mask
    with open_volume(path, "combine") as reader:
        return reader.read("kspace")


def alike(one, other):
    """Correlation of two complex arrays, whatever their phases."""
    return abs(np.vdot(one, other)) / np.linalg.norm(one) / np.linalg.norm(other)


CENTRE = (np.arange(31) % 4 == 1) | (abs(np.arange(31) - 15) < 4)


def test_without_a_target_coils_are_fitted_to_their_own_image(multicoil):
    path, target = multicoil
    known = emulated(path)
    own = emulated(path, without=["reconstruction_rss"])
    assert alike(own, known) > 0.999
    with open_volume(path, "combine") as reader:
        info = check_volume(reader)
        assert reader.read("reconstruction_esc").shape == target.shape
    assert any("fitted to their own root sum of squares" in said for said in info.assumed)


@pytest.mark.parametrize("without", [(), ("reconstruction_rss",)])
def test_undersampled_coils_are_fitted_to_their_centre(multicoil, without):
    path, target = multicoil
    known = emulated(path) * CENTRE
    found = emulated(path, without=without, mask=CENTRE)
    assert (found[..., ~CENTRE] == 0).all()
    assert alike(found, known) > 0.98
    # In the same units, too: the image that a network starts from is the same.
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(known), rel=0.1)
    with open_volume(path, "combine") as reader:
        assert "reconstruction_esc" not in reader
        assert reader.target_name() == (None if without else "reconstruction_rss")
        if not without:
            assert (reader.read("reconstruction_rss") == target).all()


@pytest.mark.parametrize("mask", [None, CENTRE], ids=["full", "undersampled"])
@pytest.mark.parametrize("without", [(), ("reconstruction_rss",)], ids=["target", "no target"])
@pytest.mark.parametrize("unrolled", [False, True])
def test_prediction_takes_raw_coils(multicoil, tmp_path, unrolled, mask, without):
    path, _ = multicoil
    emulated(path, without=without, mask=mask)
    shape = {"heads": [2, 2], "embedding": 16}
    channels, settings = (3, 2), {"cascades": 1, **shape}
    if not unrolled:
        channels, settings = (1, 1), shape
    network = "unrolled-swin" if unrolled else "swin"
    spec = ModelSpec(
        task="reconstruction",
        variant=network,
        network=network,
        preset="demo",
        in_channels=channels[0],
        out_channels=channels[1],
        overrides=settings,
        provenance={},
    )
    save_model(tmp_path / "model", spec.build(), spec)
    with pytest.raises(BadDataError, match=r"reconstruction\.ingest\.multicoil to combine"):
        predict(compose(["demo"]), [path], model=str(tmp_path / "model"), out=tmp_path / "out")
    config = compose(["demo"], ["reconstruction.ingest.multicoil=combine"])
    (out,) = predict(config, [path], model=str(tmp_path / "model"), out=tmp_path / "out", force=mask is not None)
    with h5py.File(out) as file:
        assert file["reconstruction"].shape == (5, 20, 22)
        assert np.isfinite(file["reconstruction"][()]).all()


def test_the_card_describes_the_combined_volumes(multicoil):
    path, target = multicoil
    statistics = volume_statistics(path, "combine")
    assert (statistics["slices"], statistics["rows"], statistics["columns"]) == (5, 42, 31)
    assert 10 ** statistics["log_maximum"] == pytest.approx(target[2].max(), rel=0.3)


def test_anybody_s_predictions_are_scored_against_raw_undersampled_coils(multicoil, tmp_path):
    """Zero-filled is fastMRI's: the root of the coils' sum of squares."""
    path, target = multicoil
    with h5py.File(path) as file:
        coils = file["kspace"][()] * CENTRE
    emulated(path, mask=CENTRE)
    with h5py.File(tmp_path / "prediction.h5", "w") as file:
        file["reconstruction"] = 1.01 * target
    row = score_case("a", path, tmp_path / "prediction.h5")
    assert row["psnr"] == pytest.approx(volume_metrics(target, 1.01 * target)["psnr"], abs=1e-4)
    assert row["acceleration"] == 31 / CENTRE.sum()
    zero_filled = np.sqrt((centred_image(coils, (20, 22)) ** 2).sum(axis=1))
    assert row["zero_filled_psnr"] == pytest.approx(
        volume_metrics(target, zero_filled.astype(np.float32))["psnr"], abs=1e-3
    )


def test_one_coil_is_no_multi_coil(write_volume):
    path = write_volume()
    with h5py.File(path, "a") as file:
        kspace = file["kspace"][()]
        del file["kspace"]
        file["kspace"] = kspace[:, None]
    for policy in ("refuse", "combine"):
        with open_volume(path, policy) as reader:
            assert (reader.read("kspace") == kspace).all()
            assert check_volume(reader).target == "reconstruction_esc"


def names(source, **ingest):
    return [case.name for case in ReconstructionSource(make_config(ingest=ingest)).find_cases(source).cases]


def test_filter_by_acquisition(write_volume, tmp_path):
    for number, kind in enumerate(("CORPD_FBK", "CORPDFS_FBK", "CORPD_FBK")):
        write_volume(f"file{number}.h5", folder=tmp_path / "s", attributes={"acquisition": kind})
    assert names(tmp_path / "s", acquisitions=["CORPD_FBK"]) == ["file0", "file2"]
    # A file that cannot be opened is left to the check, which reports it.
    (tmp_path / "s" / "file3.h5").write_bytes(b"junk")
    assert names(tmp_path / "s", acquisitions=["CORPDFS_FBK"]) == ["file1", "file3"]
    (tmp_path / "s" / "file3.h5").unlink()
    with pytest.raises(BadDataError, match=r"3 files, none left by reconstruction\.ingest \(acquisitions AXT2"):
        names(tmp_path / "s", acquisitions=["AXT2"])


def test_fraction_of_the_volumes(tmp_path):
    for number in range(200):
        (tmp_path / f"file{number}.h5").touch()
    some, more = (names(tmp_path, volume_fraction=share) for share in (0.3, 0.6))
    assert 40 < len(some) < 80 < len(more) < 140
    assert set(some) < set(more)
    assert some == names(tmp_path, volume_fraction=0.3)
