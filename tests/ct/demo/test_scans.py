import hashlib

import nibabel as nib
import numpy as np
import pytest

from condswin.ct.cases import check_case, find_cases
from condswin.ct.config import DemoCtConfig
from condswin.ct.demo.scans import write_demo_case
from condswin.ct.demo.tints import draw_tints
from condswin.ct.pairs import read_pair

CONFIG = DemoCtConfig(cases=12, slices=16, size=96)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return [write_demo_case(folder, case, seed=10, config=CONFIG) for case in range(CONFIG.cases)]


@pytest.fixture(scope="module")
def volumes(demo):
    return [read_pair(*paths) for paths in demo]


def test_files_are_lits_files(demo):
    cases = find_cases(demo[0][0].parent).cases
    assert [case.name for case in cases] == sorted(f"volume-{number}" for number in range(12))
    assert all(check_case(case).details["voxels"]["liver"] > 500 for case in cases)
    for volume, segmentation in demo:
        assert nib.load(volume).get_data_dtype() == np.int16
        assert nib.load(segmentation).get_data_dtype() == np.uint8


def test_equal_seeds_give_equal_bytes(demo, tmp_path):
    small = DemoCtConfig(cases=2, slices=6, size=48)
    digests = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        paths = write_demo_case(tmp_path / folder, 1, seed=seed, config=small)
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths])
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.parametrize(("slices", "size"), [(1, 48), (3, 64), (40, 72)])
def test_any_size(tmp_path, slices, size):
    for case in range(4):
        image, _ = read_pair(*write_demo_case(tmp_path, case, seed=0, config=DemoCtConfig(slices=slices, size=size)))
        count, *plane = image.geometry.canonical_shape
        assert plane == [size, size]
        assert abs(count - slices) <= slices / 4 + 1


def test_geometry_varies(volumes):
    geometries = [image.geometry for image, _ in volumes]
    assert len({geometry.orientation for geometry in geometries}) >= 4
    assert any(geometry.oblique for geometry in geometries)
    assert not all(geometry.oblique for geometry in geometries)
    assert len({geometry.codes for geometry in geometries}) == 3
    assert len({geometry.spacing for geometry in geometries}) == 12


def test_tumours(volumes):
    free = [not (labels.data == 2).any() for _, labels in volumes]
    assert sum(free) == 3
    for _, labels in volumes:
        assert (labels.data == 2).sum() < (labels.data == 1).sum()


def test_the_liver_lies_on_the_left_of_the_image(volumes):
    for image, labels in volumes:
        body = np.argwhere(image.canonical > -300)[:, 2].mean()
        liver = np.argwhere(labels.canonical > 0)[:, 2].mean()
        assert liver < body - 5


def test_tissues_have_their_hounsfield_units(volumes):
    for image, labels in volumes:
        assert image.data.min() <= -950
        assert image.data.max() > 300  # bone
        assert 15 < np.median(image.data[labels.data == 1]) < 190
        body = image.data[image.data > -300]
        assert ((body > -150) & (body < -60)).mean() > 0.1  # fat
    livers = [np.median(image.data[labels.data == 1]) for image, labels in volumes]
    assert np.ptp(livers) > 60  # phases differ


def test_some_volumes_reach_far_beyond_the_liver_and_some_fields_of_view_beyond_the_body(volumes):
    heights = [image.geometry.spacing[0] * len(image.canonical) for image, _ in volumes]
    assert max(heights) > 200 > 180 > min(heights)
    for (image, labels), height in zip(volumes, heights, strict=True):
        shown = labels.canonical.any(axis=(1, 2)).sum() * image.geometry.spacing[0]
        assert 40 < shown < 180  # a liver is a liver however high the volume
        assert height < 200 or shown < height / 2 + 40
    widths = [image.geometry.spacing[2] * image.geometry.canonical_shape[2] for image, _ in volumes]
    bodies = [np.ptp(np.flatnonzero((image.canonical > -300).any(axis=(0, 1)))) for image, _ in volumes]
    assert max(widths) > 430
    assert min(body / 96 for body in bodies) < 0.85


def test_phases_differ_in_what_is_brighter_than_what():
    tints = [draw_tints(np.random.default_rng(seed)) for seed in range(200)]
    assert 0.1 < np.mean([tint.vessels < 0 for tint in tints]) < 0.4  # dark, and no tumours
    assert 0.3 < np.mean([tint.spleen > tint.liver for tint in tints]) < 0.8
    assert {draw_tints(np.random.default_rng(3)), draw_tints(np.random.default_rng(3))} == {tints[3]}


def test_neither_liver_nor_tumours_can_be_thresholded(volumes):
    liver = np.concatenate([image.data[labels.data > 0] for image, labels in volumes])
    tumour = np.concatenate([labels.data[labels.data > 0] == 2 for _, labels in volumes])
    assert best_threshold(liver, tumour) < 0.5
    alone = [
        best_threshold(image.data[labels.data > 0], labels.data[labels.data > 0] == 2)
        for image, labels in volumes
        if (labels.data == 2).any()
    ]
    assert np.mean(alone) < 0.6
    every = np.concatenate([image.data.ravel() for image, _ in volumes])
    assert best_window(every, np.concatenate([labels.data.ravel() > 0 for _, labels in volumes])) < 0.7


def dice(mask, truth):
    return 2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum())


def best_threshold(hu, truth):
    return max(max(dice(hu < level, truth), dice(hu > level, truth)) for level in range(-20, 220, 4))


def best_window(hu, truth):
    return max(
        dice((hu > low) & (hu < low + width), truth) for low in range(20, 130, 10) for width in range(20, 120, 20)
    )
