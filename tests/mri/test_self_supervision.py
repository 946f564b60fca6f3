"""Training on measured lines alone: what the network sees, what the loss compares, and that targets are not read."""

import shutil
from pathlib import Path

import h5py
import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from condswin.config.root import Config
from condswin.errors import BadDataError, BadFileError, ConfigError
from condswin.fourier import fftc, hybrid_image, readout_hybrid
from condswin.manifest import Manifest
from condswin.mri.card import volume_statistics
from condswin.mri.config import UndersampleConfig
from condswin.mri.extent import center
from condswin.mri.facts import ReconstructionFacts
from condswin.mri.learning import ReconstructionLearning
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.pictures import ReconstructionPictures
from condswin.mri.self_supervision import MeasuredSliceDataset, held_out_snr, line_loss, outer_lines, withhold
from condswin.mri.undersample import prepare_full, prepare_measured, prepare_undersampled
from condswin.networks.models import create_model
from condswin.steps.ingest import ingest
from condswin.steps.predict import predict
from condswin.steps.prepare import prepare
from condswin.steps.train import train
from condswin.tasks.slices import Shown
from condswin.training import fit

from .conftest import Writer, make_config

MASKS = UndersampleConfig(mask="equispaced_fraction", accelerations=[3], center_fractions=[0.16])
SMALL = {"embedding": 16, "heads": [2, 2], "stem_channels": 8, "cascades": 1, "variation_steps": 2}
NETWORK = "unrolled-swin"


def config(**others: object) -> Config:
    variants = {NETWORK: {"overrides": SMALL}}
    train = {"loss": "ssdu", "epochs": 1, "batch_size": 2, "device": "cpu"}
    return make_config(variants=variants, train=train, undersample=MASKS.model_dump(), **others)


@pytest.fixture
def prepared(write_volume: Writer, tmp_path: Path) -> Path:
    """Training and validation volumes of two widths; one of each was undersampled at the scanner and has no target."""
    sampled = draw_mask(MASKS, 32, 5).sampled
    for number, columns in enumerate((31, 32)):
        source = write_volume(f"full{number}.h5", columns=columns, seed=number, folder=tmp_path / "raw")
        prepare_full(source, tmp_path / "prepared" / "train" / source.name)
        prepare_undersampled(source, tmp_path / "prepared" / "val" / source.name, MASKS)
    source = write_volume("scan.h5", columns=32, seed=7, folder=tmp_path / "raw", datasets=measured(sampled))
    with h5py.File(source, "r+") as file:
        file["kspace"][...] = file["kspace"][()] * sampled
    for split in ("train", "val"):
        prepare_measured(source, tmp_path / "prepared" / split / "scan.h5")
    return tmp_path / "prepared"


def measured(sampled: np.ndarray) -> dict[str, object]:
    return {"mask": sampled, "reconstruction_esc": None}


def slices(prepared: Path, split: str = "train", *, training: bool = True, share: float = 0.4) -> MeasuredSliceDataset:
    return MeasuredSliceDataset(prepared / split, MASKS, training=training, share=share)


def trained(prepared: Path, checkpoints: Path) -> list[torch.Tensor]:
    chosen = config()
    pl.seed_everything(3, workers=True, verbose=False)
    fitted = fit(
        ReconstructionLearning(chosen), create_model(NETWORK, preset="demo", in_channels=3, out_channels=2, **SMALL),
        chosen.reconstruction.train, monitor=ReconstructionFacts(chosen).monitor, validated=True, name=NETWORK,
        prepared=prepared, checkpoints=checkpoints, seed=3, label="t",
    )  # fmt: skip
    scores = [torch.tensor([row["train/loss"], row["val/loss"], row["val/held_out_snr"]]) for row in fitted.history]
    assert torch.isfinite(torch.cat(scores)).all()
    return [*scores, *(parameter.detach() for parameter in fitted.network.parameters())]


def test_targets_and_unmeasured_lines_change_not_a_bit(prepared: Path, tmp_path: Path) -> None:
    first = trained(prepared, tmp_path / "first")
    draw = np.random.default_rng(0)
    for path in prepared.glob("*/*.h5"):
        with h5py.File(path, "r+") as file:
            if "reconstruction_esc" in file:
                shape = file["reconstruction_esc"].shape
                file["reconstruction_esc"][...] = draw.random(shape, dtype=np.float32) * 1e6
                file.attrs["max"] = 1e6
            if "mask" in file:
                file["zero_filled"][...] = 7
            else:
                sampled = draw_mask(MASKS, file["kspace"].shape[-1], name_seed(path.name)).sampled
                kspace = file["kspace"][()]
                kspace[..., ~sampled] = draw.random(kspace[..., ~sampled].shape) + 3j
                file["kspace"][...] = kspace
    second = trained(prepared, tmp_path / "second")
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    # What was measured does.
    with h5py.File(prepared / "train" / "scan.h5", "r+") as file:
        file["kspace"][...] = file["kspace"][()] * np.linspace(1, 2, 32)
    third = trained(prepared, tmp_path / "third")
    assert not all(torch.equal(one, other) for one, other in zip(first, third, strict=True))


@pytest.mark.parametrize("split", ["train", "val"])
def test_what_is_shown_and_what_is_withheld_are_the_measured_lines(prepared: Path, split: str) -> None:
    data = slices(prepared, split, training=False)
    for index in range(len(data)):
        item, path = data[index], Path(data.name(index).partition(",")[0])
        at = int(data.name(index).rpartition(" ")[2]) - 1
        with h5py.File(path) as file:
            kspace = file["kspace"][at]
            sampled = (
                file["mask"][()] if "mask" in file else draw_mask(MASKS, kspace.shape[-1], name_seed(path.name))[0]
            )
        hybrid = torch.from_numpy(readout_hybrid(kspace, 20)) / item["std"]
        held = item["held"][0].numpy()
        lines = outer_lines(sampled)
        assert held.sum() == round(0.4 * len(lines)) > 0
        assert set(np.flatnonzero(held)) < set(lines)
        middle = center(sampled)
        assert not held[middle.first : middle.last].any()
        assert middle.width >= 5
        shown = sampled & ~held
        assert (item["image"][2, 0].numpy() == shown).all()
        expected = hybrid_image(hybrid * torch.from_numpy(shown))
        torch.testing.assert_close(torch.complex(*item["image"][:2]), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(item["measured"], hybrid * torch.from_numpy(held), rtol=1e-4, atol=1e-5)


def test_lines_are_drawn_afresh_in_training_and_stay_in_validation(prepared: Path) -> None:
    for training in (True, False):
        data = slices(prepared, training=training)
        torch.manual_seed(0)
        drawn = {tuple(data[1]["held"][0].tolist()) for _ in range(8)}
        assert (len(drawn) > 3) is training
        torch.manual_seed(0)
        again = {tuple(data[1]["held"][0].tolist()) for _ in range(8)}
        assert again == drawn
    held = [slices(prepared, training=False)[index]["held"] for index in (0, 1, 2)]
    assert not torch.equal(held[0], held[1]) or not torch.equal(held[1], held[2])


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_at_least_one_line_is_withheld(share: float) -> None:
    sampled = draw_mask(MASKS, 60, 1).sampled
    held = withhold(sampled, share).numpy()
    assert held.sum() == max(round(share * len(outer_lines(sampled))), 1)


def test_the_loss_is_that_of_withheld_lines_alone(prepared: Path) -> None:
    data = slices(prepared)
    torch.manual_seed(1)
    batch = torch.utils.data.default_collate([data[0], data[1]])
    output = torch.randn(2, 2, 20, 31, requires_grad=True)
    loss = line_loss(output, batch)
    lines = fftc(torch.complex(output[:, 0], output[:, 1]).detach()).numpy()
    expected = []
    for one in range(2):
        held = batch["held"][one, 0].numpy()
        truth, found = batch["measured"][one].numpy()[:, held], lines[one][:, held]
        expected.append(
            np.linalg.norm(found - truth) / np.linalg.norm(truth) + np.abs(found - truth).sum() / np.abs(truth).sum()
        )
    assert float(loss.detach()) == pytest.approx(np.mean(expected), rel=1e-4)
    loss.backward()
    assert output.grad is not None
    moved = fftc(torch.complex(output.grad[:, 0], output.grad[:, 1]))
    assert float((moved * ~batch["held"]).abs().max()) < 1e-5 * float(moved.abs().max())
    # What gives the withheld lines back is right, whatever it says of others.
    perfect = hybrid_image(batch["measured"] + 5.0 * ~batch["held"])
    parts = torch.stack([perfect.real, perfect.imag], 1)
    assert float(line_loss(parts, batch)) < 1e-4
    assert (held_out_snr(parts, batch) > 60).all()
    assert held_out_snr(torch.zeros_like(parts), batch).tolist() == pytest.approx([0, 0], abs=1e-4)
    # A slice that measured nothing there says nothing.
    empty = {**batch, "measured": torch.zeros_like(batch["measured"])}
    assert float(line_loss(parts, empty)) == 0


def test_slices_are_made_alike_by_loader_and_device_and_from_memory_or_disk(prepared: Path) -> None:
    data, read = (
        slices(prepared),
        MeasuredSliceDataset(prepared / "train", MASKS, training=True, share=0.4, cache_bytes=0),
    )
    torch.manual_seed(2)
    raws = [data.raw(0), data.raw(1)]
    batch = data.inputs(torch.utils.data.default_collate(raws))
    torch.manual_seed(2)
    items = [read[0], read[1]]
    for name, values in batch.items():
        torch.testing.assert_close(values, torch.stack([item[name] for item in items]), rtol=1e-5, atol=1e-6)


def test_a_volume_with_its_centre_alone_is_named(prepared: Path, write_volume: Writer) -> None:
    sampled = np.zeros(32, bool)
    sampled[10:22] = True
    source = write_volume("narrow.h5", columns=32, datasets=measured(sampled))
    prepare_measured(source, prepared / "train" / "narrow.h5")
    with pytest.raises(BadFileError, match=r"narrow\.h5: no line outside its fully sampled centre was measured"):
        slices(prepared)


def test_networks_without_lines_are_refused_in_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        ReconstructionLearning(config()).channels("swin")
    assert "\n" not in str(caught.value)
    assert "swin gives magnitudes, which have none; train an unrolled network (unrolled-swin)" in str(caught.value)
    assert ReconstructionLearning(config()).channels(NETWORK) == (3, 2)


def test_the_best_epoch_is_that_of_withheld_lines() -> None:
    assert ReconstructionFacts(config()).monitor == ("held_out_snr", True)
    assert ReconstructionFacts(make_config()).monitor == ("volume_psnr", True)


def test_pictures_need_no_target(prepared: Path, tmp_path: Path) -> None:
    data = slices(prepared, "val", training=False)
    batch = torch.utils.data.default_collate([data[0]])
    figure = ReconstructionPictures(config()).slices([Shown("scan", batch, batch["image"][:, :2])])
    assert figure is not None
    assert [axis.get_title() for axis in figure.axes] == ["zero-filled", "output", "", ""]
    figure.savefig(tmp_path / "picture.png")


def source_of_scans(write_volume: Writer, folder: Path, *, header: bool = True) -> Path:
    for number in range(6):
        sampled = draw_mask(MASKS, 32, number).sampled
        attributes = {"patient_id": f"P{number}", "max": None}
        others = {} if header else {"header": None}
        path = write_volume(f"s{number}.h5", columns=32, seed=number, folder=folder, datasets=measured(sampled),
                            attributes=attributes, **others)  # fmt: skip
        with h5py.File(path, "r+") as file:
            file["kspace"][...] = file["kspace"][()] * sampled
    return folder


def test_undersampled_scans_go_all_the_way(write_volume: Writer, tmp_path: Path) -> None:
    raw = source_of_scans(write_volume, tmp_path / "raw")
    chosen = config(ingest={"undersampled": "accept"})
    manifest = ingest(chosen, "reconstruction", source=str(raw), out=tmp_path / "in")
    assert all(case.details["target"] is None for case in manifest.cases)
    assert manifest.cases[0].details["target_shape"] == [3, 20, 22]
    done = prepare(chosen, "reconstruction", ingested=tmp_path / "in", out=tmp_path / "out")
    assert isinstance(done, Manifest)
    with h5py.File(next((tmp_path / "out" / "train").glob("*.h5"))) as file:
        assert set(file) == {"kspace", "mask", "zero_filled", "ismrmrd_header"}
        assert file.attrs["acceleration"] == file.attrs["true_acceleration"] > 1.5
        assert "PERSON" not in str(dict(file.attrs))
    assert {case.details["true_acceleration"] for case in done.cases} != {1.0}
    result = train(chosen, "reconstruction", NETWORK, prepared=tmp_path / "out", checkpoints=tmp_path / "c",
                   out=tmp_path / "model")  # fmt: skip
    assert "val/held_out_snr" in result.history[0]
    predict(chosen, [raw / "s1.h5"], model=str(tmp_path / "model"), out=tmp_path / "predicted", force=True)
    with h5py.File(tmp_path / "predicted" / "s1.h5") as file:
        assert file["reconstruction"].shape == (3, 20, 22)
    assert volume_statistics(raw / "s1.h5")["log_maximum"] < 0
    # Where targets are needed, the file is named.
    supervised = make_config(variants={NETWORK: {"overrides": SMALL}})
    with pytest.raises(BadFileError, match=r"has no target image.*but by reconstruction\.train\.loss: ssdu"):
        ReconstructionLearning(supervised).dataset(tmp_path / "out", "train", NETWORK, training=True)


def test_scans_that_cannot_be_learnt_from_are_refused_by_name(write_volume: Writer, tmp_path: Path) -> None:
    raw = source_of_scans(write_volume, tmp_path / "raw")
    with pytest.raises(BadDataError, match=r"s0\.h5: is already undersampled.*ingest\.undersampled to accept"):
        ingest(config(), "reconstruction", source=str(raw), out=tmp_path / "in")
    shutil.rmtree(raw)
    source_of_scans(write_volume, raw, header=False)
    with pytest.raises(BadDataError, match=r"s0\.h5: neither a target nor a reconstructed matrix"):
        ingest(config(ingest={"undersampled": "accept"}), "reconstruction", source=str(raw), out=tmp_path / "in")
