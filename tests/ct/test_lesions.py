"""Lesions that are drawn into livers: where they are, what they do to HU, and that labels say the same."""

import json

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from condswin.config.reading import load_config
from condswin.ct.config import PrepareCtConfig
from condswin.ct.dataset import SliceDataset
from condswin.ct.lesions import draw_lesions
from condswin.ct.pairs import read_pair
from condswin.ct.prepare import prepare_case
from condswin.errors import BadDataError, ConfigError
from tests.whole import Whole

from .fakes import AFFINES, anatomy, config, write_pair

WINDOWS = PrepareCtConfig().windows
LIVER = 100.0


def liver(slices=1, side=96, radius=36.0):
    """A round liver of one HU in all slices, smaller in outer ones."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    distance = ((rows - side / 2) ** 2 + (columns - side / 2) ** 2).sqrt()
    labels = torch.stack([(distance < radius - abs(at - slices // 2)).long() for at in range(slices)])
    return torch.where(labels > 0, LIVER, -80.0), labels


def test_labels_are_where_hu_changed_by_half():
    seen, sizes = {"darker": 0, "brighter": 0}, []
    for seed in range(60):
        torch.manual_seed(seed)
        image, labels = liver()
        drawn, changed = draw_lesions(image, labels, (1.0, 1.0, 1.0))
        assert torch.equal(image, liver()[0])  # the arguments are left alone
        difference = (drawn - image)[0]
        tumour = changed[0] == 2
        assert tumour.any()
        # Liver is liver or tumour, the rest is what it was, in HU too.
        assert torch.equal(changed > 0, labels > 0)
        assert not difference[labels[0] == 0].any()
        assert difference.abs().max() <= 60
        inside, outside = difference[tumour].abs(), difference[(labels[0] > 0) & ~tumour].abs()
        assert inside.min() >= 7  # half of the least contrast
        assert outside.mean() < inside.mean() / 2
        seen["darker" if difference[tumour].mean() < 0 else "brighter"] += 1
        sizes.append(int(tumour.sum()))
    assert seen["darker"] > 2 * seen["brighter"] > 0
    assert min(sizes) < 60
    assert max(sizes) > 600


def test_edges_are_soft_and_texture_shows_through():
    image, labels = liver()
    noise = 10 * torch.randn_like(image)
    widths = set()
    for seed in range(20):
        results = []
        for texture in (0, noise):
            torch.manual_seed(seed)
            results.append(draw_lesions(image + texture, labels, (1.0, 1.0, 1.0))[0])
        torch.testing.assert_close(results[1] - results[0], noise, atol=1e-3, rtol=1e-3)
        share = (results[0] - image)[0].abs()
        between = (share > 0.2 * share.max()) & (share < 0.8 * share.max())
        assert between.any()
        widths.add(int(between.sum()))
    assert len(widths) > 10


@pytest.mark.parametrize("spacing", [(5.0, 0.8, 0.8), (1.0, 2.0, 1.0), (5.0, 4.0, 4.0)])
def test_lesions_are_of_millimetres_in_all_directions(spacing):
    """One that reaches further than the next slice is drawn there too, and is labelled there for whom it is drawn."""
    reach, extents = [], []
    for seed in range(80):
        torch.manual_seed(seed)
        image, labels = liver(slices=5)
        drawn, changed = draw_lesions(image, labels, spacing)
        tumour = changed == 2
        assert not (tumour & (labels == 0)).any()
        reach.append(int(tumour.any(dim=(1, 2)).sum()))
        # A slice without label is (nearly) as it was.
        for at in range(5):
            if not tumour[at].any():
                assert (drawn - image)[at].abs().max() <= 30
        parts = tumour[2].nonzero()
        if len(parts):
            extents.append(float((parts.max(0).values - parts.min(0).values).float().mean()))
    if spacing[0] == 5.0:
        assert 1 in reach
    assert max(reach) == 5
    assert extents


def test_without_liver_nothing_is_drawn():
    image = torch.randn(3, 40, 40)
    for label in (0, 2):
        labels = torch.full((3, 40, 40), label)
        drawn, changed = draw_lesions(image, labels, (1.0, 1.0, 1.0))
        assert torch.equal(drawn, image)
        assert torch.equal(changed, labels)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for number in range(2):
        volume, segmentation = write_pair(folder / "in", number, (48, 40, 15), AFFINES["lits"])
        prepare_case(f"volume-{number}", volume, segmentation, folder, PrepareCtConfig())
    return sorted(folder.glob("*.h5"))


def test_the_spacing_is_that_of_prepared_pixels(files, tmp_path):
    assert SliceDataset(files, windows=WINDOWS).spacings[0] == pytest.approx((5.0, 0.8, 0.8))
    volume, segmentation = write_pair(tmp_path / "in", 0, (60, 40, 9), AFFINES["anisotropic"])
    prepare_case("volume-0", volume, segmentation, tmp_path, PrepareCtConfig(spacing=1.2))
    assert SliceDataset([tmp_path / "volume-0.h5"], windows=WINDOWS).spacings[0] == pytest.approx(
        (7.5, 1.2, 1.2), rel=0.05
    )


@pytest.mark.parametrize("neighbours", [0, 2])
@pytest.mark.parametrize("cache_bytes", [1 << 30, 0])
def test_the_share_of_slices_with_liver_gets_them(files, neighbours, cache_bytes):
    plain = SliceDataset(files, windows=WINDOWS, neighbours=neighbours)
    data = SliceDataset(files, windows=WINDOWS, neighbours=neighbours, lesions=0.4, cache_bytes=cache_bytes)
    torch.manual_seed(0)
    changed = {True: [], False: []}
    for index in list(range(30)) * (6 if cache_bytes else 2):
        item, was = data[index], plain[index]
        assert item["image"].shape == was["image"].shape
        assert item["label"].shape == was["label"].shape
        assert torch.equal(item["label"] > 0, was["label"] > 0)
        changed[bool((was["label"] > 0).any())].append(not torch.equal(item["image"], was["image"]))
        assert changed[True][-1:] != [False] or torch.equal(item["label"], was["label"])
    assert not any(changed[False])
    if cache_bytes:
        assert np.mean(changed[True]) == pytest.approx(0.4, abs=0.1)


def test_one_seed_draws_one_lesion_from_memory_and_from_disk(files):
    for seed in range(3):
        items = []
        for cache_bytes in (1 << 30, 0):
            data = SliceDataset(files, windows=WINDOWS, neighbours=1, lesions=1.0, augmented=True, crop=32,
                                cache_bytes=cache_bytes)  # fmt: skip
            torch.manual_seed(seed)
            items.append(default_collate([data[7], data[22]]))
        for name, values in items[0].items():
            assert torch.equal(values, items[1][name])


def test_a_share_of_no_slices_is_refused(tmp_path):
    _, segmentation = write_pair(tmp_path / "in", 0, (32, 24, 9), AFFINES["lits"])
    volume = tmp_path / "in" / "volume-0.nii.gz"
    prepare_case("volume-0", volume, segmentation, tmp_path, PrepareCtConfig())
    with h5py.File(tmp_path / "volume-0.h5", "a") as file:
        del file["liver_slices"], file["tumour_slices"]
        file["liver_slices"], file["tumour_slices"] = np.zeros(0, np.int32), np.zeros(0, np.int32)
    with pytest.raises(
        BadDataError, match=r"train\.synthetic_lesions is 0\.5, but no slice .* shows liver: set it to 0"
    ):
        SliceDataset([tmp_path / "volume-0.h5"], windows=WINDOWS, lesions=0.5)
    assert read_pair(volume, segmentation)[1].data.any()


def test_validation_and_the_demo_see_none_and_a_model_says_that_it_did(tmp_path):
    task = Whole("segmentation", config(train={"synthetic_lesions": 0.33, "foreground": 0.0, "tumour": 0.0}))
    assert task.synthetic() == ["synthetic lesions in 33% of the training slices with liver"]
    assert Whole("segmentation", config()).synthetic() == []
    write_pair(tmp_path / "raw", 0, (48, 40, 15))
    for case in task.find_cases(tmp_path / "raw").cases:
        task.prepare_case(case.name, case.files, "val", tmp_path / "prepared" / "val")
    data = task.dataset(tmp_path / "prepared", "val", "swin", training=False)
    assert data.lesions == 0
    assert task.dataset(tmp_path / "prepared", "val", "swin", training=True).lesions == 0.33
    assert json.dumps(task.synthetic())


def test_overlap_is_refused_where_slices_pass_whole(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("segmentation: {variants: {swin: {}}, predict: {overlap: 0.5}}\n")
    with pytest.raises(ConfigError, match=r"segmentation\.predict\.overlap: slices pass whole"):
        load_config(path)
    for setting in ("segmentation.predict.window=96", "segmentation.train.crop=96"):
        assert load_config(path, [setting]).segmentation.predict.overlap == 0.5
    assert anatomy((8, 8, 3))[1].any()
