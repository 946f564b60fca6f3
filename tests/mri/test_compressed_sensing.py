import h5py
import numpy as np
import pytest
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

from condswin.errors import BadFileError
from condswin.mri.compressed_sensing import reconstruct_volume, total_variation, tune
from condswin.mri.config import UndersampleConfig
from condswin.mri.metrics import psnr
from condswin.mri.undersample import prepare_full, prepare_undersampled

SETTINGS = UndersampleConfig(mask="random", accelerations=[3], center_fractions=[0.1])


def phantom_kspace(rows, columns, noise=0.0):
    """Shepp and Logan's phantom with a smooth phase, in k-space by numpy's transform."""
    image = resize(shepp_logan_phantom(), (rows, columns)).astype(np.float64)
    image = image * np.exp(1j * np.linspace(-1, 1, columns))
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=axes), norm="ortho"), axes=axes)
    draw = np.random.default_rng(0)
    kspace = kspace + noise * (draw.standard_normal(kspace.shape) + 1j * draw.standard_normal(kspace.shape))
    return np.abs(image), kspace.astype(np.complex64)


@pytest.fixture
def prepared(write_volume, tmp_path):
    image, kspace = phantom_kspace(65, 64, noise=0.005)
    datasets = {"kspace": 1e-5 * kspace[None], "reconstruction_esc": (1e-5 * image[None, 8:56, 8:56]).astype("f4")}
    out = tmp_path / "val" / "file1.h5"
    prepare_undersampled(write_volume("file1.h5", datasets=datasets), out, SETTINGS)
    return out


def test_recovers_a_piecewise_constant_image(prepared):
    """What total variation is made for: far better than zero-filled."""
    with h5py.File(prepared) as file:
        target, zero_filled = file["reconstruction_esc"][()], file["zero_filled"][()]
    images = reconstruct_volume(prepared, 0.003)
    assert images.dtype == np.float32
    assert psnr(target, images) > psnr(target, zero_filled) + 3


@pytest.mark.parametrize("rows", [64, 65])
def test_fully_sampled_and_unweighted_is_the_inverse_transform(rows):
    image, kspace = phantom_kspace(rows, 47)
    images = total_variation(kspace[None], (40, 31), np.ones(47, bool), 1e-9, scale=1.0)
    top, left = (rows - 40) // 2, (47 - 31) // 2
    np.testing.assert_allclose(images[0], image[top : top + 40, left : left + 31], atol=1e-5)


def test_minimises_its_functional():
    """Against scipy's general minimiser on a smoothed problem of a few pixels, in float64."""
    from scipy.optimize import minimize

    rows, columns, weight = 8, 9, 0.05
    draw = np.random.default_rng(1)
    kspace = draw.standard_normal((rows, columns, 2)).astype(np.float32).view(np.complex64)[..., 0]
    sampled = np.arange(columns) % 2 == 0
    axes = (-2, -1)

    def functional(image, smooth=0.0):
        spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=axes), norm="ortho"), axes=axes)
        down = np.diff(image, axis=0, append=image[-1:])
        right = np.diff(image, axis=1, append=image[:, -1:])
        variation = np.sqrt(np.abs(down) ** 2 + np.abs(right) ** 2 + smooth).sum()
        return 0.5 * (np.abs(spectrum - kspace)[:, sampled] ** 2).sum() + weight * variation

    def flat(values):
        return functional(
            values[: rows * columns].reshape(rows, columns) + 1j * values[rows * columns :].reshape(rows, columns), 1e-9
        )

    best = minimize(flat, np.zeros(2 * rows * columns), options={"maxiter": 60}).fun
    ours = solution(kspace, sampled, weight)
    assert functional(ours) <= best * 1.02


def solution(kspace, sampled, weight):
    from condswin.mri import compressed_sensing

    return compressed_sensing.solve(kspace, kspace.shape[0], sampled, weight)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_units_do_not_matter(scale):
    _, kspace = phantom_kspace(32, 32)
    sampled = np.arange(32) % 3 != 0
    once = total_variation(kspace[None], (32, 32), sampled, 0.01, scale=1.0)
    other = total_variation(np.complex64(scale) * kspace[None], (32, 32), sampled, 0.01, scale=scale)
    np.testing.assert_allclose(other, scale * once, rtol=1e-3, atol=1e-5 * scale)


def test_tuning_prefers_a_weight_that_fits(prepared):
    scores = tune([prepared], (1e-7, 0.003, 10.0))
    assert max(scores, key=lambda weight: scores[weight]) == 0.003


def test_refuses_what_is_not_undersampled(write_volume, tmp_path):
    prepare_full(write_volume(), tmp_path / "full.h5")
    with pytest.raises(BadFileError, match="no mask"):
        reconstruct_volume(tmp_path / "full.h5", 0.01)
