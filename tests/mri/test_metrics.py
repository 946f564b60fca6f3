import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from condswin.mri.metrics import psnr, slice_psnr, ssim, volume_metrics


def pair(slices=4, rows=33, columns=40, scale=1.0, dtype=np.float32):
    draw = np.random.default_rng(3)
    target = np.abs(np.cumsum(draw.standard_normal((slices, rows, columns)), axis=-1))
    target *= np.linspace(0.2, 1, slices)[:, None, None] * scale
    prediction = target + draw.standard_normal(target.shape) * 0.3 * scale
    return target.astype(dtype), prediction.astype(dtype)


def min_max(images):
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    return (images - low) / (high - low)


def reference_ssim(target, prediction):
    maximum = target.max()
    return np.mean([structural_similarity(x, y, data_range=maximum) for x, y in zip(target, prediction, strict=True)])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(4, 33, 40), (1, 7, 7), (2, 8, 15)])
def test_ssim_is_scikit_image_s(shape, scale):
    target, prediction = pair(*shape, scale=scale, dtype=np.float64)
    assert ssim(target, prediction) == pytest.approx(reference_ssim(target, prediction), abs=1e-6)


def test_ssim_of_float32_agrees_to_a_ten_millionth():
    target, prediction = pair(3, 320, 320, scale=1e-5)
    expected = reference_ssim(target.astype(np.float64), prediction.astype(np.float64))
    assert ssim(target, prediction) == pytest.approx(expected, abs=1e-7)


def test_ssim_of_a_bad_prediction_agrees():
    target, _ = pair(dtype=np.float64)
    for prediction in (0 * target, -target, 30 * target, target + 1000):
        assert ssim(target, prediction) == pytest.approx(reference_ssim(target, prediction), abs=1e-6)


def test_frozen_values():
    """Worked out by hand: a volume of zeros but for one slice of twos, off by one everywhere."""
    target = np.zeros((2, 8, 8), np.float32)
    target[1] = 2
    prediction = target + 1
    metrics = volume_metrics(target, prediction)
    assert metrics["nmse"] == pytest.approx(0.5)
    assert metrics["psnr"] == psnr(target, prediction) == pytest.approx(6.020599913)
    assert metrics["mae"] == pytest.approx(1.0)
    # Flat windows: luminance terms c1 / (1 + c1) and (2 * 6 + c1) / (13 + c1) with c1 = 0.02 ** 2.
    assert ssim(target, prediction) == pytest.approx((0.0004 / 1.0004 + 12.0004 / 13.0004) / 2)


def test_formulas_on_a_random_volume():
    target, prediction = pair()
    metrics = volume_metrics(target, prediction)
    x, y = target.astype(np.float64), prediction.astype(np.float64)
    assert metrics["nmse"] == pytest.approx(np.linalg.norm(x - y) ** 2 / np.linalg.norm(x) ** 2)
    assert metrics["psnr"] == pytest.approx(20 * np.log10(x.max()) - 10 * np.log10(np.mean((x - y) ** 2)))
    assert metrics["mae"] == pytest.approx(np.abs(x - y).mean())


@pytest.mark.parametrize("scale", [1e-7, 1e4])
def test_units_do_not_matter(scale):
    """The notebook fixed the data range at one, which makes SSIM and PSNR depend on the scanner's units."""
    reference = volume_metrics(*pair())
    scaled = volume_metrics(*pair(scale=scale))
    for name in ("psnr", "ssim", "nmse"):
        assert scaled[name] == pytest.approx(reference[name], rel=1e-4)


def test_data_range_is_the_volume_s():
    """Not the slice's own maximum, and not min-max per slice: dim slices would count as bright ones."""
    target, prediction = pair()
    by_slice = np.mean([psnr(target[i : i + 1], prediction[i : i + 1]) for i in range(len(target))])
    assert abs(by_slice - psnr(target, prediction)) > 1
    rescaled = min_max(target), min_max(prediction)
    assert abs(ssim(*rescaled) - ssim(target, prediction)) > 0.01
    assert abs(psnr(*rescaled) - psnr(target, prediction)) > 1


def test_nmse_is_of_the_volume_not_a_mean_over_slices_or_batches():
    target, prediction = pair()
    by_slice = [volume_metrics(target[i : i + 1], prediction[i : i + 1])["nmse"] for i in range(len(target))]
    assert np.mean(by_slice) > 1.5 * volume_metrics(target, prediction)["nmse"]


def test_perfect_prediction():
    target, _ = pair()
    metrics = volume_metrics(target, target)
    assert metrics == {"psnr": float("inf"), "ssim": pytest.approx(1.0), "nmse": 0.0, "mae": 0.0}


def test_slice_psnr_uses_the_given_maximum():
    target, prediction = pair()
    maximum = torch.full((len(target),), float(target.max()))
    scores = slice_psnr(torch.from_numpy(target)[:, None], torch.from_numpy(prediction)[:, None], maximum)
    for score, x, y in zip(scores, target, prediction, strict=True):
        assert float(score) == pytest.approx(psnr(x[None], y[None], maximum=float(target.max())), rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 33, 40), (4, 33, 39), (4, 1, 33, 40)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="must be of one 3-D shape"):
        volume_metrics(np.ones((4, 33, 40)), np.ones(shape))


def test_refuses_slices_below_the_window():
    with pytest.raises(ValueError, match="smaller than SSIM's window"):
        ssim(np.ones((1, 6, 9)), np.ones((1, 6, 9)))
