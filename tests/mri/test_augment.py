"""Complex images that are mirrored, turned, scaled and shifted before they are undersampled."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from condswin.config.train import TrainConfig
from condswin.errors import BadDataError
from condswin.fourier import center_crop, fftc, ifftc
from condswin.mri.augment import draw_move, move
from condswin.mri.config import AugmentMriConfig, UndersampleConfig
from condswin.mri.dataset import ComplexSliceDataset
from condswin.mri.undersample import prepare_full, prepare_undersampled
from condswin.tasks.slices import PROGRESS, Batch
from condswin.training.loaders import inputs, training_loader
from tests.mri.test_dataset import SETTINGS
from tests.mri.test_dataset import prepared as prepared  # a fixture

EVERYTHING = UndersampleConfig(accelerations=[1], center_fractions=[0.16])
ALL = AugmentMriConfig(probability=1.0)


def disc(rows: int, columns: int, at: tuple[float, float], radius: float = 4.0) -> Tensor:
    """A smooth disc with a phase, (1, rows, columns)."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    distance = ((row - at[0]) ** 2 + (column - at[1]) ** 2).sqrt()
    return torch.polar(torch.sigmoid(radius - distance), 0.3 + 0.05 * column)[None]


def centre(image: Tensor) -> tuple[float, float]:
    weight = image.abs()[0].double()
    row, column = torch.meshgrid(torch.arange(len(weight)), torch.arange(weight.shape[1]), indexing="ij")
    return float((row * weight).sum() / weight.sum()), float((column * weight).sum() / weight.sum())


def drawn(**values: object) -> Batch:
    """What would be drawn for one slice that no kind of change meets, but for what is given."""
    none = {"mirrored_columns": torch.tensor([False]), "chances": torch.ones(1, 3), "amounts": torch.zeros(1, 4)}
    return {**none, **{name: torch.tensor([value]) for name, value in values.items()}}


@pytest.mark.parametrize("columns", [40, 41])
@pytest.mark.parametrize("wanted", [29, 30])
def test_mirrored_columns_and_their_target_stay_together(columns: int, wanted: int) -> None:
    """Of even and odd widths: mirroring the target would move it by a pixel where these are of two kinds."""
    image = disc(32, columns, (12, 17))
    (hybrid,), target = move(drawn(mirrored_columns=True), [fftc(image)], torch.zeros(1, 32, wanted), ALL)
    torch.testing.assert_close(ifftc(hybrid), image.flip(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(center_crop(ifftc(hybrid), (32, wanted)).abs(), target, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(40, 40), (32, 48)])
def test_each_kind_does_what_it_says(size: tuple[int, int]) -> None:
    rows, columns = size
    settings = AugmentMriConfig(probability=1.0, rotation=30, scale=0.2, shift=0.1)
    middle = (rows - 1) / 2, (columns - 1) / 2
    image = disc(rows, columns, (middle[0] - 6, middle[1]), radius=2)

    def moved(kind: int, amounts: list[float]) -> Tensor:
        chances = [1.0, 1.0, 1.0]
        chances[kind] = 0.5
        (hybrid,), target = move(drawn(chances=chances, amounts=amounts), [fftc(image)], image.abs(), settings)
        torch.testing.assert_close(ifftc(hybrid).abs(), target, atol=1e-5, rtol=1e-4)
        return target

    turned = moved(0, [1.0, 1.0, 1.0, 1.0])
    # Rigid, whatever the shape: 30 degrees about the middle.
    row, column = centre(turned)
    assert math.hypot(row - middle[0], column - middle[1]) == pytest.approx(6, abs=0.15)
    assert abs(column - middle[1]) == pytest.approx(6 * math.sin(math.radians(30)), abs=0.15)
    assert float(turned.sum()) == pytest.approx(float(image.abs().sum()), rel=0.01)
    smaller = moved(1, [1.0, 1.0, 1.0, 1.0])
    assert centre(smaller)[0] == pytest.approx(middle[0] - 6 / 1.2, abs=0.1)
    assert float(smaller.sum()) == pytest.approx(float(image.abs().sum()) / 1.2**2, rel=0.02)
    row, column = centre(moved(2, [1.0, 1.0, -1.0, 0.5]))
    assert row == pytest.approx(middle[0] - 6 + 0.1 * rows, abs=0.1)
    assert column == pytest.approx(middle[1] - 0.05 * columns, abs=0.1)


def test_the_phase_moves_along() -> None:
    image = disc(40, 40, (20, 20), radius=8)
    (hybrid,), _ = move(drawn(chances=[1.0, 1.0, 0.0], amounts=[0.0, 0.0, 0.0, -1.0]), [fftc(image)], image.abs(),
                        AugmentMriConfig(probability=1.0, shift=0.1))  # fmt: skip
    found = ifftc(hybrid)[0, 20, 22:26].angle()
    torch.testing.assert_close(found, image[0, 20, 18:22].angle(), atol=0.01, rtol=0)


def test_neighbours_move_alike() -> None:
    torch.manual_seed(0)
    image, other = disc(40, 40, (14, 18)), disc(40, 40, (24, 22))
    both = move(drawn(mirrored_columns=True, chances=[0.0] * 3, amounts=[0.7, -0.4, 0.2, 0.9]),
                [fftc(image), fftc(other)], image.abs(), ALL)[0]  # fmt: skip
    again = move(drawn(mirrored_columns=True, chances=[0.0] * 3, amounts=[0.7, -0.4, 0.2, 0.9]), [fftc(other)],
                 other.abs(), ALL)[0]  # fmt: skip
    torch.testing.assert_close(both[1], again[0])


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.5, 0.92), (1.0, 1.0), (None, 1.0)])
def test_the_probability_rises(progress: float | None, share: float) -> None:
    torch.manual_seed(0)
    batch = default_collate([draw_move(movable=True) for _ in range(2000)])
    batch["mirrored_columns"][:] = False
    if progress is not None:
        batch[PROGRESS] = torch.full((2000,), progress)
    hybrid = fftc(disc(8, 8, (3, 3), radius=2)).expand(2000, -1, -1)
    (found,), _ = move(batch, [hybrid], hybrid.abs(), AugmentMriConfig(probability=0.2))
    changed = ((found - hybrid).abs().amax((1, 2)) > 1e-6).float().mean()
    # That of any of three kinds.
    assert float(changed) == pytest.approx(1 - (1 - 0.2 * share) ** 3, abs=0.03)


def test_fully_sampled_items_are_still_their_targets(prepared: Path) -> None:
    data = ComplexSliceDataset(prepared / "train", EVERYTHING, training=True, augment=ALL)
    plain = ComplexSliceDataset(prepared / "train", EVERYTHING, training=True)
    differ = 0
    for seed in range(8):
        items = []
        for each in (data, plain):
            torch.manual_seed(seed)
            items.append(each[3])
        image = torch.complex(items[0]["image"][0], items[0]["image"][1])
        torch.testing.assert_close(image[:, 5:27].abs(), items[0]["target"][0], atol=1e-3, rtol=1e-3)
        differ += not torch.allclose(items[0]["target"], items[1]["target"], atol=0.1)
    assert differ == 8


def test_what_was_undersampled_with_one_mask_is_left_as_it_is(
    prepared: Path, write_volume: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    prepare_undersampled(write_volume("fixed.h5"), folder / "fixed.h5", SETTINGS)
    with pytest.raises(BadDataError, match=r"mixed: train\.augment moves fully sampled images, and none is"):
        ComplexSliceDataset(folder, SETTINGS, training=True, augment=ALL)
    prepare_full(write_volume("whole.h5"), folder / "whole.h5")
    data, plain = (ComplexSliceDataset(folder, SETTINGS, training=True, augment=augment) for augment in (ALL, None))
    for seed in range(4):
        for item, moved in ((1, False), (4, True)):
            pair = []
            for each in (data, plain):
                torch.manual_seed(seed)
                pair.append(each[item])
            assert torch.equal(pair[0]["target"], pair[1]["target"]) is not moved


@pytest.mark.parametrize("neighbours", [0, 1])
def test_devices_change_batches_as_loaders_do(prepared: Path, neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ComplexSliceDataset(prepared / "train", SETTINGS, training=True, augment=ALL, neighbours=neighbours)

    def batches(transforms: str) -> list[Batch]:
        train = TrainConfig.model_validate({"batch_size": 4, "transforms": transforms, "epochs": 2})
        return list(training_loader(data, train, seed=1, rank=0, ranks=1))

    loaded, raw = batches("loader"), batches("device")
    monkeypatch.setattr("condswin.fourier._scipy_takes", lambda _: False)
    for expected, batch in zip(loaded, raw, strict=True):
        found = inputs(data, batch)
        assert found.keys() == expected.keys()
        for name, values in found.items():
            torch.testing.assert_close(values, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cache_bytes", [1 << 30, 0])
def test_neighbours_follow_and_ends_are_repeated(prepared: Path, cache_bytes: int) -> None:
    data = ComplexSliceDataset(prepared / "val", SETTINGS, training=False, neighbours=2, cache_bytes=cache_bytes)
    alone = ComplexSliceDataset(prepared / "val", SETTINGS, training=False)
    assert len(data) == len(alone) == 9
    for first, count in ((0, 2), (2, 3), (5, 4)):
        for slice_ in range(count):
            item, plain = data[first + slice_], alone[first + slice_]
            assert item["image"].shape[0] == 3 + 4 * 2
            for name in plain:
                wanted = item[name][:3] if name == "image" else item[name]
                torch.testing.assert_close(wanted, plain[name])
            for place, step in enumerate((-2, -1, 1, 2)):
                other = alone[first + min(max(slice_ + step, 0), count - 1)]
                scale = other["std"] / item["std"]
                found = item["image"][3 + 2 * place : 5 + 2 * place]
                torch.testing.assert_close(found, other["image"][:2] * scale, atol=1e-5, rtol=1e-4)


def test_neighbours_get_the_mask_and_the_phase_of_their_slice(prepared: Path) -> None:
    """In training, where both are drawn: slices of one scan are measured alike."""
    data = ComplexSliceDataset(prepared / "train", SETTINGS, training=True, neighbours=1, augment=ALL)
    full = ComplexSliceDataset(prepared / "train", EVERYTHING, training=True, neighbours=1, augment=ALL)
    for seed in range(4):
        items = []
        for each in (data, full):
            torch.manual_seed(seed)
            items.append(each[3])
        masked, everything = items
        parts = [torch.complex(masked["image"][at], masked["image"][at + 1]) for at in (0, 3, 5)]
        whole = [torch.complex(everything["image"][at], everything["image"][at + 1]) for at in (0, 3, 5)]
        ratio = everything["std"] / masked["std"]
        for part, unmasked in zip(parts, whole, strict=True):
            torch.testing.assert_close(fftc(part), fftc(unmasked) * masked["image"][2] * ratio, atol=1e-4, rtol=1e-3)
