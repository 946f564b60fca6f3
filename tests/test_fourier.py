import numpy as np
import pytest
import torch

from condswin.fourier import center_crop, fft2c, fftc, ifft2c, ifftc, magnitude_image, readout_hybrid


def centred_image(kspace, size):
    """Magnitude image in float64, written down independently of the product's code."""
    axes = (-2, -1)
    wide = np.fft.ifft2(np.fft.ifftshift(kspace.astype(np.complex128), axes=axes), norm="ortho")
    top, left = (kspace.shape[-2] - size[0]) // 2, (kspace.shape[-1] - size[1]) // 2
    return np.abs(np.fft.fftshift(wide, axes=axes)[..., top : top + size[0], left : left + size[1]])


@pytest.mark.parametrize("shape", [(8, 8), (7, 8), (8, 9), (15, 13), (640, 372)])
def test_round_trip_and_norm(shape):
    image = torch.randn(2, *shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    kspace = fft2c(image)
    assert kspace.dtype == torch.complex64
    assert torch.allclose(ifft2c(kspace), image, atol=1e-5)
    # In double precision: a sum of half a million squares is not what is tested.
    before, after = (float(one.to(torch.complex128).norm()) for one in (image, kspace))
    assert after == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 7, 8), (2, 15, 13)])
@pytest.mark.parametrize(("forward", "back", "axes"), [(fft2c, ifft2c, (-2, -1)), (fftc, ifftc, (-1,))])
def test_tensors_and_arrays_agree_with_numpy(shape, forward, back, axes):
    image = torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    wide = np.fft.ifftshift(image.numpy().astype(np.complex128), axes=axes)
    expected = np.fft.fftshift(np.fft.fftn(wide, axes=axes, norm="ortho"), axes=axes)
    np.testing.assert_allclose(forward(image).numpy(), expected, atol=1e-5)
    array = forward(image.numpy())
    assert array.dtype == np.complex64
    np.testing.assert_allclose(array, expected, atol=1e-5)
    np.testing.assert_allclose(back(array), image.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (15, 12)])
def test_constant_image_has_all_energy_at_the_centre(shape):
    kspace = fft2c(torch.ones(shape, dtype=torch.complex64)).abs()
    assert int(kspace.argmax()) == (shape[0] // 2) * shape[1] + shape[1] // 2


@pytest.mark.parametrize(
    ("length", "wanted", "first"), [(7, 4, 1), (8, 5, 1), (9, 3, 3), (368, 320, 24), (5, 5, 0), (6, 3, 1)]
)
def test_center_crop_starts_where_fastmri_does(length, wanted, first):
    row = torch.arange(length)
    assert center_crop(row.expand(length, length), (wanted, wanted))[0].tolist() == list(range(first, first + wanted))


def test_center_crop_refuses_a_smaller_image():
    with pytest.raises(ValueError, match="cannot crop 9 from the middle of 8"):
        center_crop(torch.zeros(10, 8), (9, 9))


@pytest.mark.parametrize("shape", [(3, 40, 32), (2, 41, 33), (1, 40, 33), (2, 33, 40)])
@pytest.mark.parametrize("size", [(20, 22), (21, 21), (33, 32)])
def test_magnitude_image_is_the_straightforward_one(shape, size):
    draw = np.random.default_rng(1)
    kspace = (draw.standard_normal(shape) + 1j * draw.standard_normal(shape)).astype(np.complex64)
    sampled = draw.random(shape[-1]) < 0.4
    image = magnitude_image(kspace, size, sampled)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, centred_image(kspace * sampled, size), atol=1e-5)
    np.testing.assert_allclose(magnitude_image(kspace, size), centred_image(kspace, size), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 40, 32), (1, 41, 33), (1, 40, 33), (2, 33, 40)])
@pytest.mark.parametrize("rows", [20, 21, 33])
def test_hybrid_space_keeps_the_phase_of_the_image(shape, rows):
    draw = np.random.default_rng(2)
    kspace = (draw.standard_normal(shape) + 1j * draw.standard_normal(shape)).astype(np.complex64)
    image = ifftc(readout_hybrid(kspace, rows))
    expected = center_crop(ifft2c(torch.from_numpy(kspace)), (rows, shape[-1])).numpy()
    np.testing.assert_allclose(image, expected, atol=1e-5)
