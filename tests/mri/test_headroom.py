import h5py
import numpy as np
import pytest

from condswin.mri.metrics import psnr
from tests.mri.headroom import cases, chosen, composite, pooled, table


def test_errors_are_summed_over_parts_of_any_size() -> None:
    error = np.arange(2 * 20 * 37, dtype=float).reshape(2, 20, 37)
    tiles = pooled(error, 16, 16)
    assert tiles.shape == (2, 2, 3)
    assert tiles[1, 1, 2] == error[1, 16:, 32:].sum()
    assert pooled(error, 16, 0).shape == (2, 2, 1)
    assert pooled(error, 0, 0)[0, 0, 0] == error[0].sum()


def test_a_share_of_each_slice_or_of_the_volume_is_chosen() -> None:
    worth = np.array([[[4.0, 3], [2, 1]], [[8, 7], [6, 5]]])
    assert chosen(worth, 0.5, whole_volume=False).tolist() == 2 * [[[True, True], [False, False]]]
    assert chosen(worth, 0.5, whole_volume=True).tolist() == [2 * [2 * [False]], 2 * [2 * [True]]]


@pytest.mark.parametrize("unit", ["tile", "band", "slice"])
def test_nothing_is_the_light_network_and_everything_the_heavy_one(unit: str) -> None:
    target, light, heavy = np.random.default_rng(0).random((3, 4, 40, 36))
    for rule in ("error", "gain"):
        assert np.array_equal(composite(light, heavy, target, unit, rule, 0.0), light)
        assert np.array_equal(composite(light, heavy, target, unit, rule, 1.0), heavy)
        half = composite(light, heavy, target, unit, rule, 0.5)
        assert not np.array_equal(half, light)
    assert psnr(target, half) > max(psnr(target, light), psnr(target, heavy))


def test_predictions_of_the_seeds_that_both_networks_have_are_read(tmp_path) -> None:
    target, light, heavy = np.random.default_rng(0).random((3, 2, 32, 32)).astype(np.float32)
    (tmp_path / "test").mkdir()
    with h5py.File(tmp_path / "test" / "file1.h5", "w") as file:
        file["reconstruction_esc"] = target
    for folder, images in (("light-1", light), ("wide-head-1", heavy), ("light-2", light), ("light-wide-1", heavy)):
        (tmp_path / "ablation" / folder / "test").mkdir(parents=True)
        (tmp_path / "ablation" / folder / "scores.json").write_text("{}")
        with h5py.File(tmp_path / "ablation" / folder / "test" / "file1.h5", "w") as file:
            file["reconstruction"] = images
    found = list(cases(tmp_path / "test", tmp_path / "ablation", ["light", "wide head"], "test"))
    assert len(found) == 1
    assert all(np.array_equal(one, other) for one, other in zip(found[0], (target, light, heavy), strict=True))
    difference = psnr(target, heavy) - psnr(target, light)
    shown = table(2 * found, [1.0])
    assert f"| {difference:+.3f} |" in shown
    assert f"All of it: {difference:+.3f} dB, standard error 0.000 dB" in shown
