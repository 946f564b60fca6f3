import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from condswin.errors import ConfigError
from condswin.mri.config import UndersampleConfig
from condswin.mri.masks import draw_mask, name_seed

FROZEN = json.loads((Path(__file__).parent / "fastmri_masks.json").read_text())
KINDS = get_args(UndersampleConfig.model_fields["mask"].annotation)


def settings(kind="random", acceleration=4, center_fraction=0.08):
    return UndersampleConfig(mask=kind, accelerations=[acceleration], center_fractions=[center_fraction])


def test_all_frozen_sets_are_here():
    assert len(FROZEN) == 60


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda f: f"{f['kind']}-{f['width']}-{f['acceleration']}-{f['seed']}")
def test_samples_the_lines_of_fastmri(frozen):
    seed = name_seed(frozen["seed"]) if isinstance(frozen["seed"], str) else frozen["seed"]
    chosen = settings(frozen["kind"], frozen["acceleration"], frozen["center_fraction"])
    mask = draw_mask(chosen, frozen["width"], seed)
    assert np.flatnonzero(mask.sampled).tolist() == frozen["sampled"]
    assert mask.num_low_frequencies == frozen["num_low_frequencies"]
    assert mask.true_acceleration == frozen["width"] / len(frozen["sampled"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [31, 32, 149, 368, 371])
@pytest.mark.parametrize(("acceleration", "fraction"), [(4, 0.08), (8, 0.04), (2, 0.3), (1, 0.5)])
def test_holds_for_any_width(kind, width, acceleration, fraction):
    mask = draw_mask(settings(kind, acceleration, fraction), width, 7)
    assert mask.sampled.shape == (width,)
    assert mask.sampled.dtype == np.bool_
    start = (width - mask.num_low_frequencies + 1) // 2
    assert mask.sampled[start : start + mask.num_low_frequencies].all()
    assert mask.true_acceleration == width / mask.sampled.sum()


def test_an_offset_moves_regular_lines():
    lines = [draw_mask(settings("equispaced"), 320, 1, offset=offset).sampled for offset in (0, 1)]
    assert lines[0][::4].all()
    assert lines[1][1::4].all()


def test_offset_of_the_settings():
    fixed = UndersampleConfig(mask="equispaced", center_fractions=[0.08], offset=3)
    for seed in range(5):
        assert np.flatnonzero(draw_mask(fixed, 320, seed).sampled)[:4].tolist() == [3, 7, 11, 15]
    assert draw_mask(fixed, 320, 1, offset=2).sampled[2]


def test_same_name_same_mask_other_name_other_mask():
    first, again, other = (draw_mask(settings(), 320, name_seed(n)).sampled for n in ("a.h5", "a.h5", "b.h5"))
    assert (first == again).all()
    assert (first != other).any()


def test_draws_among_the_pairs():
    pairs = UndersampleConfig(accelerations=[4, 8], center_fractions=[0.08, 0.04])
    drawn = {draw_mask(pairs, 320, seed)[2:4] for seed in range(20)}
    assert drawn == {(4, 0.08), (8, 0.04)}


def test_notebook_rectangle_is_not_called_4x():
    """The notebook's mask, 20 % in the centre and every fourth line, measures 40 % of k-space."""
    mask = draw_mask(settings("rectangular_equispaced"), 320, 0)
    assert mask.num_low_frequencies == 64
    assert mask.acceleration == 4
    assert mask.true_acceleration == pytest.approx(2.5, abs=0.02)


def test_equispaced_is_not_called_4x_either():
    assert draw_mask(settings("equispaced"), 320, 0).true_acceleration == pytest.approx(3.2, abs=0.1)


@pytest.mark.parametrize("kind", ["random", "equispaced_fraction"])
def test_refuses_a_centre_beyond_the_acceleration(kind):
    with pytest.raises(ConfigError, match=r"centre fraction of 0\.4 .* 4x"):
        draw_mask(settings(kind, 4, 0.4), 320, 0)


def test_refuses_an_empty_mask():
    with pytest.raises(ConfigError, match="samples none"):
        draw_mask(settings("magic", 400, 0.001), 30, 0)
