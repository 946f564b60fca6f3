"""What `raw` reads and draws and `inputs` computes: in a loader, and a batch at a time on a device."""

from pathlib import Path

import h5py
import pytest
import torch
from torch.utils.data import default_collate

from condswin.config.train import TrainConfig
from condswin.mri.dataset import ComplexSliceDataset, SliceDataset
from condswin.mri.masks import draw_mask, name_seed
from condswin.tasks.slices import Batch
from condswin.training.loaders import inputs, training_loader, validation_loader
from tests.mri.test_dataset import SETTINGS
from tests.mri.test_dataset import prepared as prepared  # a fixture

KINDS = pytest.mark.parametrize("kind", [SliceDataset, ComplexSliceDataset])


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the transforms that other devices than CPUs take."""
    monkeypatch.setattr("condswin.fourier._scipy_takes", lambda _: False)


def batches(data: SliceDataset, transforms: str, *, validation: bool = False) -> list[Batch]:
    train = TrainConfig.model_validate({"batch_size": 4, "transforms": transforms})
    make = validation_loader if validation else training_loader
    return list(make(data, train, seed=1, rank=0, ranks=1))


@KINDS
@pytest.mark.parametrize("cache_bytes", [1 << 30, 0])
def test_a_device_s_inputs_are_a_loader_s(
    prepared: Path, kind: type[SliceDataset], cache_bytes: int, request: pytest.FixtureRequest
) -> None:
    """Volumes of 31 and 32 columns: magnitudes of both are in one batch, complex images are not."""
    data = kind(prepared / "train", SETTINGS, training=True, cache_bytes=cache_bytes)
    loaded, raw = batches(data, "loader"), batches(data, "device")
    mixed = [len(batch["width"].unique()) > 1 for batch in raw if "width" in batch]
    assert any(mixed) is (kind is SliceDataset)
    request.getfixturevalue("elsewhere")
    for expected, batch in zip(loaded, raw, strict=True):
        assert "image" not in batch
        found = inputs(data, batch)
        assert found.keys() == expected.keys()
        for name, values in found.items():
            assert values.dtype == expected[name].dtype
            torch.testing.assert_close(values, expected[name], rtol=1e-5, atol=1e-5)


@KINDS
def test_validation_too(prepared: Path, kind: type[SliceDataset], elsewhere: None) -> None:
    data = kind(prepared / "val", SETTINGS, training=False)
    for batch, raw in zip(
        batches(data, "loader", validation=True), batches(data, "device", validation=True), strict=True
    ):
        for name, values in data.inputs(raw).items():
            torch.testing.assert_close(values, batch[name], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(
                values, torch.stack([data[int(item)][name] for item in raw["item"]]), rtol=1e-5, atol=1e-5
            )


@KINDS
def test_what_is_drawn_is_drawn_before(prepared: Path, kind: type[SliceDataset]) -> None:
    """The mask's seed comes first, as an item's; `inputs` takes nothing from the generator."""
    data = kind(prepared / "train", SETTINGS, training=True)
    for index in (0, 3):
        torch.manual_seed(index)
        raw = data.raw(index)
        torch.manual_seed(index)
        seed = (int(torch.randint(2**32, (), dtype=torch.int64)), 0)
        width = 31 if index == 0 else 32
        assert raw["sampled"][:width].tolist() == draw_mask(SETTINGS, width, seed).sampled.tolist()
        assert not raw["sampled"][width:].any()
        state = torch.get_rng_state()
        first, again = (data.inputs(default_collate([raw])) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(values, again[name]) for name, values in first.items())
    full = kind(prepared / "train", SETTINGS, training=False)
    assert torch.equal(
        full.raw(2)["sampled"][:32], torch.from_numpy(draw_mask(SETTINGS, 32, name_seed("file1.h5")).sampled)
    )


def test_a_split_may_have_files_with_and_without_zero_filled_images(prepared: Path) -> None:
    (prepared / "val" / "file2.h5").rename(prepared / "train" / "masked.h5")
    with h5py.File(prepared / "train" / "masked.h5") as file:
        stored = torch.from_numpy(file["zero_filled"][:])
    data = SliceDataset(prepared / "train", SETTINGS, training=False)
    items = [index for index in range(len(data)) if "masked" in data.name(index)]
    batch = default_collate([data.raw(index) for index in (0, *items)])
    assert batch["width"].tolist() == [31, *[0] * len(items)]
    found = data.inputs(batch)
    restored = found["image"] * found["std"][:, None, None, None] + found["mean"][:, None, None, None]
    inside = found["image"].abs() < 6
    torch.testing.assert_close(restored[1:, 0][inside[1:, 0]], stored[inside[1:, 0]], rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(found["image"][0], data[0]["image"])
