import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from condswin.errors import BadDataError, BadFileError
from condswin.mri.config import UndersampleConfig
from condswin.mri.dataset import ComplexSliceDataset, SliceDataset
from condswin.mri.inputs import complex_volume, normalise, zero_filled_volume
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.undersample import prepare_full, prepare_undersampled

from .conftest import centred_image

SETTINGS = UndersampleConfig(accelerations=[4], center_fractions=[0.16])


@pytest.fixture
def prepared(write_volume, tmp_path):
    """Three training volumes of two widths, and the same as a validation split."""
    for number, columns in enumerate((31, 32, 31)):
        name = f"file{number}.h5"
        source = write_volume(name, columns=columns, seed=number, slices=2 + number)
        prepare_full(source, tmp_path / "train" / name)
        prepare_undersampled(source, tmp_path / "val" / name, SETTINGS)
    return tmp_path


def epochs(folder, *, seed, workers=0, count=2, cache_bytes=1 << 30):
    data = SliceDataset(folder, SETTINGS, training=True, cache_bytes=cache_bytes)
    torch.manual_seed(seed)
    loader = DataLoader(data, batch_size=2, shuffle=True, num_workers=workers)
    return [torch.cat([batch["image"] for batch in loader]) for _ in range(count)]


def test_items(prepared):
    data = SliceDataset(prepared / "train", SETTINGS, training=True)
    assert len(data) == 2 + 3 + 4
    item = data[4]
    assert item["image"].shape == item["target"].shape == (1, 20, 22)
    assert int(item.pop("item")) == 4
    assert int(item.pop("volume")) == 1
    assert {name: value.dtype for name, value in item.items()} == dict.fromkeys(
        ("image", "target", "mean", "std", "maximum"), torch.float32
    )
    assert data.name(4) == f"{prepared / 'train' / 'file1.h5'}, slice 3"
    assert float(item["image"].mean()) == pytest.approx(0, abs=0.05)
    assert item["mean"].shape == item["std"].shape == item["maximum"].shape == ()
    with h5py.File(prepared / "train" / "file1.h5") as file:
        target = file["reconstruction_esc"][2]
        assert float(item["maximum"]) == pytest.approx(file["reconstruction_esc"][()].max())
    restored = item["target"][0] * item["std"] + item["mean"]
    np.testing.assert_allclose(np.sort(restored.ravel()), np.sort(target.ravel()), rtol=1e-4, atol=1e-9)


def test_input_and_target_share_the_input_s_scale(prepared):
    """The notebook scaled input and target each to its own 0..1, slice by slice: a network cannot undo that."""
    item = SliceDataset(prepared / "val", SETTINGS, training=False)[0]
    with h5py.File(prepared / "val" / "file0.h5") as file:
        zero_filled, target = file["zero_filled"][0], file["reconstruction_esc"][0]
    assert float(item["mean"]) == pytest.approx(zero_filled.mean(), rel=1e-5)
    assert float(item["std"]) == pytest.approx(zero_filled.std(), rel=1e-5)
    expected = (target - zero_filled.mean()) / zero_filled.std()
    np.testing.assert_allclose(item["target"][0], expected, rtol=1e-3, atol=1e-4)


def test_training_images_are_those_of_the_mask_that_was_drawn(prepared):
    data = SliceDataset(prepared / "train", SETTINGS, training=True)
    torch.manual_seed(4)
    item = data[0]
    torch.manual_seed(4)
    seed = (int(torch.randint(2**32, (), dtype=torch.int64)), 0)
    with h5py.File(prepared / "train" / "file0.h5") as file:
        zero_filled = centred_image(file["kspace"][0] * draw_mask(SETTINGS, 31, seed).sampled, (20, 22))
    expected = np.clip((zero_filled - zero_filled.mean()) / zero_filled.std(), -6, 6)
    mirrors = [expected, expected[::-1], expected[:, ::-1], expected[::-1, ::-1]]
    assert any(np.allclose(item["image"][0], mirror, atol=1e-4) for mirror in mirrors)


def test_training_slices_are_mirrored_with_their_targets(prepared):
    data = SliceDataset(prepared / "train", SETTINGS, training=True)
    with h5py.File(prepared / "train" / "file0.h5") as file:
        target = file["reconstruction_esc"][0]
    mirrors = [target, target[::-1], target[:, ::-1], target[::-1, ::-1]]
    seen = set()
    for _ in range(40):
        item = data[0]
        shown = item["target"][0] * item["std"] + item["mean"]
        seen |= {number for number, mirror in enumerate(mirrors) if np.allclose(shown, mirror, rtol=1e-3, atol=1e-9)}
        # Input and target are mirrored alike: they resemble each other more than any mirror image does.
        likeness = [
            np.corrcoef(item["image"].ravel(), item["target"][0].numpy()[::a, ::b].ravel())[0, 1]
            for a in (1, -1)
            for b in (1, -1)
        ]
        assert int(np.argmax(likeness)) == 0
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("workers", [0, 2])
def test_same_seed_same_epochs(prepared, workers):
    first, again, other = (epochs(prepared / "train", seed=s, workers=workers) for s in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_masks_differ_between_items_and_epochs(prepared, workers):
    data = SliceDataset(prepared / "train", SETTINGS, training=True)
    torch.manual_seed(3)
    # One slice again and again: all that can differ is the mask.
    repeated = torch.utils.data.Subset(data, [0] * 8)
    images = [batch["image"] for _ in range(2) for batch in DataLoader(repeated, batch_size=1, num_workers=workers)]
    assert len({image.numpy().tobytes() for image in images}) == 16


def test_reading_slice_by_slice_gives_the_same(prepared):
    cached, read = (epochs(prepared / "train", seed=1, cache_bytes=size) for size in (1 << 30, 0))
    for a, b in zip(cached, read, strict=True):
        assert torch.equal(a, b)
    cached, read = (SliceDataset(prepared / "val", SETTINGS, training=False, cache_bytes=s) for s in (1 << 30, 0))
    for index in range(len(cached)):
        for name, value in cached[index].items():
            assert torch.equal(value, read[index][name])


def test_validation_is_the_same_every_time(prepared):
    data = SliceDataset(prepared / "val", SETTINGS, training=False)
    assert torch.equal(data[3]["image"], data[3]["image"])
    # A fully sampled split that is not trained on keeps one mask per file, that of an undersampled file of its name.
    full = SliceDataset(prepared / "train", SETTINGS, training=False)
    assert torch.allclose(full[3]["image"], data[3]["image"], atol=1e-4)


@pytest.mark.parametrize("kind", [SliceDataset, ComplexSliceDataset])
@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1e4])
def test_inputs_do_not_depend_on_the_scanner_s_units(write_volume, tmp_path, scale, kind):
    items = []
    for name, factor in (("a", 1.0), ("b", scale)):
        folder = tmp_path / name
        prepare_full(write_volume("file.h5", scale=factor), folder / "file.h5")
        torch.manual_seed(0)
        items.append(kind(folder, SETTINGS, training=True)[0])
    assert torch.allclose(items[0]["image"], items[1]["image"], atol=1e-4)
    assert torch.allclose(items[0]["target"], items[1]["target"], atol=1e-4)


def test_inputs_are_clamped_and_targets_are_not():
    zero_filled = torch.full((1, 64, 64), 1.0)
    zero_filled[0, 0, 0] = 1000
    assert float(normalise(zero_filled, 1000.0).image.max()) == 6


def test_empty_slices_stay_quiet(write_volume, tmp_path):
    path = tmp_path / "split" / "file.h5"
    source = write_volume()
    with h5py.File(source, "a") as file:
        file["kspace"][1] = 0
        file["reconstruction_esc"][1] = 0
    prepare_undersampled(source, path, SETTINGS)
    item = SliceDataset(path.parent, SETTINGS, training=False)[1]
    assert all(bool(torch.isfinite(value).all()) for value in item.values())
    assert float(item["image"].abs().max()) == 0
    # Whatever a network answers to an empty slice is next to nothing in the volume's units.
    assert 0 < float(item["std"]) < 1e-3 * float(item["maximum"])


def test_refuses_an_empty_folder_and_damaged_files(prepared, tmp_path):
    with pytest.raises(BadDataError, match="no prepared file"):
        SliceDataset(tmp_path / "nothing", SETTINGS, training=True)
    (prepared / "train" / "file2.h5").write_bytes(b"junk")
    with pytest.raises(BadFileError, match=r"file2\.h5"):
        SliceDataset(prepared / "train", SETTINGS, training=True)


def test_zero_filled_volume_without_stored_image_or_target(prepared):
    """A file of fastMRI's own test set: masked k-space, mask and header, nothing else."""
    path = prepared / "val" / "file0.h5"
    stored = zero_filled_volume(path, SETTINGS)
    with h5py.File(path, "a") as file:
        del file["zero_filled"], file["reconstruction_esc"]
    assert torch.allclose(zero_filled_volume(path, SETTINGS), stored, atol=1e-9)
    with h5py.File(path, "a") as file:
        del file["ismrmrd_header"]
    with pytest.raises(BadFileError, match="how large the image is"):
        zero_filled_volume(path, SETTINGS)


def test_zero_filled_volume_of_a_full_file_uses_the_mask_of_its_name(prepared):
    full = zero_filled_volume(prepared / "train" / "file1.h5", SETTINGS)
    assert torch.allclose(full, zero_filled_volume(prepared / "val" / "file1.h5", SETTINGS), atol=1e-9)
    assert draw_mask(SETTINGS, 32, name_seed("file1.h5")).true_acceleration > 1.5


def test_complex_items_hold_the_zero_filled_image_and_its_mask(prepared):
    data = ComplexSliceDataset(prepared / "val", SETTINGS, training=False)
    item = data[2]  # the first slice of file1, of 32 columns
    with h5py.File(prepared / "val" / "file1.h5") as file:
        zero_filled, target, mask = (file[name][()] for name in ("zero_filled", "reconstruction_esc", "mask"))
    assert item["image"].shape == (3, 20, 32)
    assert torch.equal(item["image"][2], torch.from_numpy(mask).float().expand(20, -1))
    std = float(item["std"])
    assert std == pytest.approx(zero_filled[0].std(), rel=1e-4)
    magnitude = torch.linalg.vector_norm(item["image"][:2], dim=0)[:, 5:27].numpy() * std
    np.testing.assert_allclose(magnitude, zero_filled[0], rtol=1e-3, atol=1e-4 * zero_filled.max())
    np.testing.assert_allclose(item["target"][0].numpy() * std, target[0], rtol=1e-5)
    assert float(item["mean"]) == 0


def test_complex_training_items_have_the_target_s_phase_free_magnitude(prepared):
    """Fully sampled, the complex image is the target, mirrored with it and turned in phase."""
    everything = UndersampleConfig(accelerations=[1], center_fractions=[0.16])
    data = ComplexSliceDataset(prepared / "train", everything, training=True)
    phases, uneven = set(), set()
    for seed in range(6):
        torch.manual_seed(seed)
        item = data[3]
        image = torch.complex(item["image"][0], item["image"][1])
        assert bool((item["image"][2] == 1).all())
        torch.testing.assert_close(image[:, 5:27].abs(), item["target"][0], atol=1e-3, rtol=1e-3)
        phases.add(round(float(image[10, 16].angle()), 3))
        # Mirrored rows keep their columns: the phase between two columns is the scan's own, but for the uneven ones.
        between = (image[:, 10] * image[:, 20].conj()).angle()
        uneven.add(min(round(float(between[row]), 2) for row in (10, -11)))
    assert len(phases) == 6
    # About half.
    assert 3 <= len(uneven) <= 5


def test_sizes_tell_apart_what_does_not_batch(prepared):
    widths = [31] * 2 + [32] * 3 + [31] * 4
    magnitudes, complexes = (
        kind(prepared / "train", SETTINGS, training=True).sizes for kind in (SliceDataset, ComplexSliceDataset)
    )
    assert magnitudes == [(20, 22)] * 9
    assert complexes == [(20, 22, width) for width in widths]


def test_a_volume_for_prediction_is_scaled_as_in_training(prepared):
    inputs = complex_volume(prepared / "val" / "file2.h5", SETTINGS)
    data = ComplexSliceDataset(prepared / "val", SETTINGS, training=False)
    for slice_ in range(4):
        item = data[5 + slice_]
        torch.testing.assert_close(inputs.image[slice_], item["image"])
        torch.testing.assert_close(inputs.std[slice_], item["std"])
    assert inputs.columns == 22


def test_the_middle_slices_of_the_first_volumes_are_shown(prepared):
    data = SliceDataset(prepared / "val", SETTINGS, training=False)
    assert data.telling(2) == [1, 2 + 1]
    assert data.telling(9) == [1, 2 + 1, 2 + 3 + 2]
    assert [data.name(item).rpartition(" ")[2] for item in data.telling(9)] == ["2", "2", "3"]
