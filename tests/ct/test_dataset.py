import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from condswin.ct.augment import augment
from condswin.ct.config import PrepareCtConfig
from condswin.ct.dataset import SliceDataset, random_crop
from condswin.ct.pairs import read_pair
from condswin.ct.prepare import prepare_case
from condswin.errors import BadDataError

from .fakes import AFFINES, anatomy, write, write_pair

WINDOWS = PrepareCtConfig().windows


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for number in range(2):
        volume, segmentation = write_pair(folder / "in", number, (32, 24, 15), AFFINES["lits"])
        prepare_case(f"volume-{number}", volume, segmentation, folder, PrepareCtConfig())
    return sorted(folder.glob("*.h5"))


def test_slices_in_order(files):
    data = SliceDataset(files, windows=WINDOWS)
    assert len(data) == 30
    image, labels = read_pair(*(files[1].parent / "in" / f"{kind}-1.nii.gz" for kind in ("volume", "segmentation")))
    item = data[15 + 7]
    assert item["image"].shape == (2, 24, 32)
    assert item["image"].dtype == torch.float32
    assert item["label"].dtype == torch.int64
    np.testing.assert_array_equal(item["label"], labels.canonical[7])
    np.testing.assert_allclose(item["image"][0], image.canonical[7].clip(-160, 240) / 200 - 0.2, atol=5e-4)
    np.testing.assert_allclose(item["image"][1], (image.canonical[7].clip(-20, 200) - 90) / 110, atol=1e-3)


@pytest.mark.parametrize("neighbours", [0, 2])
def test_reading_from_disk_equals_reading_from_memory(files, neighbours):
    cached = SliceDataset(files, windows=WINDOWS, neighbours=neighbours)
    lazy = SliceDataset(files, windows=WINDOWS, neighbours=neighbours, cache_bytes=0)
    assert cached._cache is not None
    assert lazy._cache is None
    for one, two in zip((cached[i] for i in range(30)), DataLoader(lazy, None, num_workers=2), strict=True):
        assert one["image"].shape[0] == 2 * (1 + 2 * neighbours)
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["label"], two["label"])


def drawn(data, seed, workers=0):
    torch.manual_seed(seed)
    loader = DataLoader(data, 5, shuffle=True, num_workers=workers)
    return [torch.cat([batch[key] for batch in loader]) for key in ("image", "label")]


@pytest.mark.parametrize("workers", [0, 2])
def test_one_seed_gives_one_sequence(files, workers):
    data = SliceDataset(files, windows=WINDOWS, foreground=0.5, augmented=True)
    first, again, other = drawn(data, 1, workers), drawn(data, 1, workers), drawn(data, 2, workers)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("foreground", [0.0, 0.6, 1.0])
def test_share_of_liver_slices(files, foreground):
    torch.manual_seed(0)
    data = SliceDataset(files, windows=WINDOWS, foreground=foreground)
    natural = len(data.showing[1]) / len(data)
    assert 0.3 < natural < 0.8
    shown = [bool((data[i % len(data)]["label"] > 0).any()) for i in range(1500)]
    assert np.mean(shown) == pytest.approx(foreground + (1 - foreground) * natural, abs=0.04)


def test_share_of_tumour_slices(files):
    torch.manual_seed(0)
    data = SliceDataset(files, windows=WINDOWS, foreground=0.2, tumour=0.5)
    natural = [len(data.showing[label]) / len(data) for label in (1, 2)]
    share = natural[1] / natural[0]  # of liver slices
    items = [data[i % len(data)]["label"] for i in range(1500)]
    for label, expected in (
        (2, 0.5 + 0.2 * share + 0.3 * natural[1]),
        (1, 0.7 + 0.3 * natural[0]),
    ):
        assert np.mean([bool((item >= label).any()) for item in items]) == pytest.approx(expected, abs=0.04)
    crops = SliceDataset(files, windows=WINDOWS, tumour=1.0, crop=32)
    assert all((crops[i]["label"] == 2).any() for i in range(30))


def test_sizes_that_do_not_batch_are_named(files, tmp_path):
    volume, segmentation = write_pair(tmp_path / "in", 9, (33, 24, 5), AFFINES["lits"])
    prepare_case("volume-9", volume, segmentation, tmp_path, PrepareCtConfig())
    mixed = [*files, tmp_path / "volume-9.h5"]
    with pytest.raises(BadDataError, match=r"24x32: volume-0.h5, volume-1.h5; 24x33: volume-9.h5"):
        SliceDataset(mixed, windows=WINDOWS, one_size=True)
    assert len(SliceDataset(mixed, windows=WINDOWS)) == 35


def test_crops_batch_whatever_the_slices_and_show_liver(files, tmp_path):
    volume, segmentation = write_pair(tmp_path / "in", 9, (60, 50, 5), AFFINES["lits"])
    prepare_case("volume-9", volume, segmentation, tmp_path, PrepareCtConfig())
    data = SliceDataset([*files, tmp_path / "volume-9.h5"], windows=WINDOWS, crop=32, foreground=1.0, one_size=True)
    assert set(data.sizes) == {(32, 32)}
    torch.manual_seed(0)
    items = [data[i] for i in range(len(data))]
    assert {tuple(item["image"].shape) for item in items} == {(2, 32, 32)}
    assert {tuple(item["label"].shape) for item in items} == {(32, 32)}
    assert all((item["label"] > 0).any() for item in items)
    torch.manual_seed(0)
    assert all(torch.equal(item["image"], data[i]["image"]) for i, item in enumerate(items))


def test_crops_keep_image_and_label_together_and_reach_every_corner():
    label = torch.zeros(20, 50, dtype=torch.long)
    label[3:6, 40:48] = 1
    image = label[None] * 100 - 50 + torch.arange(50) / 10
    torch.manual_seed(0)
    lefts = set()
    for around in [1] * 40 + [0] * 200:
        cropped, moved = random_crop(image, label, 32, around=around)
        assert torch.equal(cropped[0] > 0, moved == 1)
        rows = slice(6, 26)  # 12 rows of air are missing: six above, six below
        assert (cropped[0, :6] == -1).all()
        assert (cropped[0, 26:] == -1).all()
        lefts.add(round(float((cropped[0, 6, 0] + 50) * 10)) if not moved[0].any() else None)
        assert not around or moved[rows].any()
    assert lefts == set(range(19))


def test_nothing_to_draw_from(tmp_path):
    with pytest.raises(BadDataError, match="no slices"):
        SliceDataset([], windows=WINDOWS)
    hu, labels = anatomy((12, 12, 4))
    labels[:] = 0
    labels[7, 5, 2] = 1
    pair = write(tmp_path / "volume-0.nii", hu), write(tmp_path / "segmentation-0.nii", labels)
    prepare_case("volume-0", *pair, tmp_path, PrepareCtConfig(spacing=4.0))  # the one voxel of liver is lost
    with pytest.raises(BadDataError, match="no slice of the 1 cases shows liver"):
        SliceDataset([tmp_path / "volume-0.h5"], windows=WINDOWS, foreground=0.5)
    with pytest.raises(BadDataError, match=r"train\.tumour is 0\.3, but no slice .* shows tumour: set it to 0"):
        SliceDataset([tmp_path / "volume-0.h5"], windows=WINDOWS, tumour=0.3)


def test_augmentation_moves_image_and_label_alike():
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    label = (((rows - 20) / 12) ** 2 + ((columns - 40) / 9) ** 2 < 1).long()
    label += (((rows - 22) / 5) ** 2 + ((columns - 42) / 4) ** 2 < 1).long()
    image = torch.stack([label * 120.0 - 100, label * 120.0 - 100])
    torch.manual_seed(0)
    places = set()
    for _ in range(60):
        moved, moved_label = augment(image, label)
        assert moved.shape == image.shape
        assert moved_label.dtype == label.dtype
        assert set(moved_label.unique().tolist()) <= {0, 1, 2}
        inside, outside = moved[0][moved_label == 2].mean(), moved[0][moved_label == 0].mean()
        assert inside > outside + 100
        assert abs(moved[0] - moved[1]).max() < 180  # channels differ by noise only
        places.add(tuple((moved_label > 0).nonzero().float().mean(0).round().tolist()))
    assert len(places) > 20


def test_slices_with_most_tumour_are_shown_and_without_any_those_with_most_liver(files, tmp_path):
    data = SliceDataset(files, windows=WINDOWS)
    labels = [np.stack([data[15 * case + index]["label"] for index in range(15)]) for case in range(2)]
    tumour = [(label == 2).sum(axis=(1, 2)) for label in labels]
    found = data.telling(5)
    assert len(found) == 2
    for case, item in enumerate(found):
        assert tumour[case].any()
        assert tumour[case][item - 15 * case] == tumour[case].max()
    healthy = tmp_path / "volume-9.h5"
    healthy.write_bytes(files[0].read_bytes())
    with h5py.File(healthy, "a") as file:
        file["label"][...] = np.minimum(file["label"][:], 1)
    (item,) = SliceDataset([healthy], windows=WINDOWS).telling(2)
    liver = (labels[0] > 0).sum(axis=(1, 2))
    assert liver[item] == liver.max()


def test_a_crop_says_where_in_its_slice_it_lies(files):
    options = {"windows": WINDOWS, "neighbours": 1, "crop": 16}
    torch.manual_seed(3)
    without = [SliceDataset(files, **options)[7] for _ in range(5)]
    torch.manual_seed(3)
    corners = set()
    for item in without:
        placed = SliceDataset(files, **options, position=True)[7]
        # What else is seen, and what is drawn, stays as it is.
        assert torch.equal(placed["image"][:6], item["image"])
        corner = []
        for places, side, axis in zip(placed["image"][6:], (24, 32), (0, 1), strict=True):
            steps = torch.linspace(-1, 1, side)
            first = int((steps - places[0, 0]).abs().argmin())
            assert torch.equal(places.select(1 - axis, 0), steps[first : first + 16])
            assert torch.equal(places, places.select(1 - axis, 0).unsqueeze(1 - axis).expand(16, 16))
            corner.append(first)
        corners.add(tuple(corner))
    assert len(corners) > 2


def test_augmented_positions_are_off_by_up_to_an_eighth_of_the_slice(files):
    torch.manual_seed(0)
    data = SliceDataset(files, windows=WINDOWS, augmented=True, position=True)
    off = torch.stack([data[7]["image"][2:, 0, 0] for _ in range(200)]) + 1
    assert (off.abs() <= 0.25).all()
    assert off.amax(0).tolist() == pytest.approx([0.25, 0.25], abs=0.02)
    assert off.amin(0).tolist() == pytest.approx([-0.25, -0.25], abs=0.02)
    rows, columns = data[7]["image"][2:]
    assert (rows[-1] - rows[0]).tolist() == pytest.approx([2] * 32)
    assert (columns[:, -1] - columns[:, 0]).tolist() == pytest.approx([2] * 24)
