"""Columns that a scan did not go over: what the values, the header and a mask say of them."""

import math

import h5py
import numpy as np
import pytest
import torch

from condswin.config.profiles import compose
from condswin.errors import BadFileError
from condswin.manifest import CaseRecord
from condswin.mri.card import ReconstructionCard
from condswin.mri.compressed_sensing import reconstruct_volume
from condswin.mri.config import UndersampleConfig
from condswin.mri.dataset import ComplexSliceDataset, SliceDataset
from condswin.mri.extent import Extent, contradictions, measurable
from condswin.mri.guard import refusals
from condswin.mri.header import parse_header
from condswin.mri.inputs import complex_volume
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.prepared import read_sampling
from condswin.mri.reading import VolumeReader
from condswin.mri.scoring import read_truth, score_case
from condswin.mri.undersample import prepare_full, prepare_scan, prepare_undersampled
from condswin.tasks.loading import load
from condswin.tasks.preparation import Preparation
from condswin.tasks.source import Case

from .conftest import HEADER, centred_image, check, make_config

SETTINGS = UndersampleConfig(mask="equispaced_fraction", accelerations=[4], center_fractions=[0.08])
WIDTH, MEASURED = 160, Extent(12, 150)


def header(width=WIDTH, measured=MEASURED):
    """Of a scan that went over some columns of k-space."""
    changed = HEADER.replace(b"<y>31</y>", b"<y>%d</y>" % width).replace(
        b"<maximum>26</maximum><center>13</center>",
        b"<maximum>%d</maximum><center>%d</center>" % (measured.width - 1, width // 2 - measured.first),
    )
    assert parse_header(changed).measured(width) == measured
    return changed


@pytest.fixture
def padded(write_volume):
    """A file whose outer columns are zero, as is its target's share of them; and a header or none."""

    def make(name="file1000001.h5", *, raw=None, held=MEASURED, **changes):
        path = write_volume(name, columns=WIDTH, header=header() if raw is None else raw or None, **changes)
        with h5py.File(path, "a") as file:
            kspace = file["kspace"][()]
            kspace[..., : held.first] = kspace[..., held.last :] = 0
            file["kspace"][...] = kspace
            file["reconstruction_esc"][...] = centred_image(kspace, (20, 22))
        return path

    return make


@pytest.fixture
def foreign(padded):
    """The same undersampled by somebody else: a mask over the whole width, no target."""

    def make(**changes):
        path = padded(**changes)
        mask = draw_mask(SETTINGS, WIDTH, name_seed(path.name)).sampled
        with h5py.File(path, "a") as file:
            file["kspace"][...] = file["kspace"][()] * mask
            del file["reconstruction_esc"]
            file["mask"] = mask
        return path

    return make


def test_columns_that_hold_values_are_found_block_by_block():
    blocks = np.zeros((3, 2, 4, 9), np.complex64)
    held = Extent.nothing(9)
    assert held.seen(blocks[0]) == held
    blocks[0, 1, 2, 4] = blocks[1, 0, 3, 2] = blocks[2, 1, 1, 6] = 1j
    seen = []
    for block in blocks:
        held = held.seen(block)
        seen.append(held)
    assert seen == [(4, 5), (2, 5), (2, 7)]
    assert held.width == 5
    assert held.within(np.arange(9) % 2 == 0).tolist() == [False, False, True, False, True, False, True, False, False]


@pytest.mark.parametrize(
    ("held", "claimed", "every", "expected"),
    [
        # Fully sampled: where values are.
        ((0, 20), None, 1, (0, 20)),
        ((3, 18), None, 1, (3, 18)),
        ((3, 18), (3, 18), 1, (3, 18)),
        ((0, 20), (3, 18), 1, (0, 20)),
        ((5, 18), (3, 18), 1, (5, 18)),
        # Every fourth: the outer ones tell no more than the header.
        ((0, 17), (0, 20), 4, (0, 20)),
        ((4, 17), (3, 18), 4, (3, 18)),
        ((4, 17), (1, 20), 4, (1, 20)),
        # Values outside what the header says.
        ((0, 17), (3, 18), 4, (0, 20)),
        ((8, 17), (9, 18), 4, (5, 20)),
        # A line that should have been measured and is zero.
        ((4, 17), None, 4, (1, 20)),
        ((8, 13), None, 4, (5, 16)),
        ((8, 13), (6, 15), 4, (6, 15)),
    ],
)
def test_what_a_scan_went_over(held, claimed, every, expected):
    sampled = None if every == 1 else np.arange(20) % every == 0
    assert measurable(Extent(*held), 20, claimed=claimed, sampled=sampled) == expected


def test_a_header_of_another_width_or_with_impossible_limits_says_nothing():
    assert parse_header(HEADER).measured(31) == (2, 29)
    assert parse_header(HEADER).measured(32) is None
    assert parse_header(HEADER.replace(b"<center>13<", b"<center>17<")).measured(31) is None
    assert parse_header(b"<ismrmrdHeader/>").measured(31) is None


def test_contradictions_are_said():
    assert contradictions(Extent(3, 18), 20, (3, 18)) == contradictions(Extent(0, 20), 20, None) == []
    assert contradictions(Extent(3, 18), 20, None) == [
        "outer columns of zeros of which no header speaks taken as never measured"
    ]
    assert contradictions(Extent(1, 16), 20, (3, 18)) == [
        "columns with values outside the header's encoding limits taken as measured",
        "outer columns of zeros within the header's encoding limits taken as never measured",
    ]


@pytest.mark.parametrize(
    ("raw", "held", "assumed"),
    [
        (None, MEASURED, []),
        (b"", MEASURED, ["outer columns of zeros of which no header speaks taken as never measured"]),
        (None, Extent(0, 160), ["columns with values outside the header's encoding limits taken as measured"]),
        (None, Extent(20, 150), ["outer columns of zeros within the header's encoding limits taken as never measured"]),
    ],
)
def test_ingestion_says_what_it_took_for_measured(padded, task, raw, held, assumed):
    path = padded(raw=raw, held=held)
    details = task.check_case(Case("file1000001", "", {"kspace": path})).details
    assert details["measured_columns"] == list(held)
    assert details["assumed"] == assumed
    assert list(check(path).assumed) == assumed


def test_masks_are_drawn_over_all_columns_and_padding_is_taken_out(padded, tmp_path):
    """FastMRI's mask, then `mask[:padding_left] = mask[padding_right:] = 0`."""
    out = tmp_path / "out" / "file1000001.h5"
    drawn = draw_mask(SETTINGS, WIDTH, name_seed(out.name))
    expected = drawn.sampled.copy()
    expected[: MEASURED.first] = expected[MEASURED.last :] = False
    assert expected.sum() < drawn.sampled.sum()
    mask = prepare_undersampled(padded(), out, SETTINGS)
    with h5py.File(out) as file:
        assert (file["mask"][()] == expected).all()
        assert (file["kspace"][()][..., ~expected] == 0).all()
        attributes = dict(file.attrs)
    assert (attributes["padding_left"], attributes["padding_right"]) == (12, 150)
    # What is called 4x keeps more of what could be measured.
    assert attributes["acceleration"] == 4
    assert attributes["true_acceleration"] == mask.true_acceleration == 138 / expected.sum() < drawn.true_acceleration
    row = score_of(out, tmp_path)
    assert (row["nominal_acceleration"], row["acceleration"]) == (4, mask.true_acceleration)


def score_of(prepared, folder):
    with h5py.File(prepared) as file, h5py.File(folder / "prediction.h5", "w") as out:
        out["reconstruction"] = file["zero_filled"][()]
    return score_case("a", prepared, folder / "prediction.h5")


def test_preparation_reports_both_accelerations(padded, tmp_path):
    settings = {"mask": "equispaced_fraction", "accelerations": [8], "center_fractions": [0.04]}
    preparation = load(Preparation, "reconstruction", make_config(undersample=settings))
    for split in ("train", "test"):
        preparation.prepare_case("file1000001", {"kspace": padded()}, split, tmp_path / split)
    drawn = draw_mask(UndersampleConfig(**settings), WIDTH, name_seed("file1000001.h5")).sampled
    details = preparation.details(tmp_path / "test", ["file1000001.h5"])
    assert details == {"acceleration": 8, "true_acceleration": 138 / MEASURED.within(drawn).sum()}
    assert preparation.details(tmp_path / "train", ["file1000001.h5"]) == {"acceleration": 1, "true_acceleration": 1}


def test_networks_see_padding_as_not_measured_and_the_same_image(padded, tmp_path):
    source = padded()
    prepare_full(source, tmp_path / "train" / "file1000001.h5")
    prepare_undersampled(source, tmp_path / "val" / "file1000001.h5", SETTINGS)
    drawn = draw_mask(SETTINGS, WIDTH, name_seed("file1000001.h5")).sampled
    for split in ("train", "val"):
        item = ComplexSliceDataset(tmp_path / split, SETTINGS, training=False)[1]
        assert torch.equal(item["image"][2], torch.from_numpy(MEASURED.within(drawn)).float().expand(20, -1))
        plain = SliceDataset(tmp_path / split, SETTINGS, training=False)[1]
        with h5py.File(source) as file:
            expected = centred_image(file["kspace"][1] * drawn, (20, 22))
        restored = plain["image"][0] * plain["std"] + plain["mean"]
        inside = plain["image"][0].abs() < 6
        np.testing.assert_allclose(restored[inside], expected[inside.numpy()], rtol=1e-3, atol=1e-9)
    # Raw files give a network what prepared ones do.
    for path in (source, tmp_path / "train" / "file1000001.h5", tmp_path / "val" / "file1000001.h5"):
        assert torch.equal(complex_volume(path, SETTINGS).image[1, 2], item["image"][2])


def test_training_masks_leave_padding_out(padded, tmp_path):
    prepare_full(padded(), tmp_path / "train" / "file1000001.h5")
    data = ComplexSliceDataset(tmp_path / "train", SETTINGS, training=True)
    for seed in range(4):
        torch.manual_seed(seed)
        mask = data[0]["image"][2, 0]
        assert not mask[: MEASURED.first].any()
        assert not mask[MEASURED.last :].any()
        assert mask.sum() > 20


@pytest.mark.parametrize(
    ("raw", "extent"),
    [(None, MEASURED), (b"", None), (header(WIDTH, Extent(0, 160)), None)],
    ids=["header", "none", "silent"],
)
def test_masks_of_others_lose_their_padding(foreign, tmp_path, raw, extent):
    path = foreign(raw=raw)
    whole = draw_mask(SETTINGS, WIDTH, name_seed(path.name)).sampled
    with VolumeReader(path) as reader:
        sampled, found = read_sampling(reader)
    assert (sampled == MEASURED.within(whole)).all()
    if extent is None:
        # No more can be told than that the lines before and after those with values were not measured.
        assert found.first <= MEASURED.first < np.flatnonzero(sampled)[0]
        assert found.last >= MEASURED.last > np.flatnonzero(sampled)[-1]
        assert not whole[found.first : np.flatnonzero(sampled)[0]].any()
    else:
        assert found == extent
    assert refusals(path, SETTINGS) == []
    if raw is None:
        mask = complex_volume(path, SETTINGS).image[0, 2, 0].numpy().astype(bool)
        assert (mask == sampled).all()
        prepare_scan(path, tmp_path / "scan" / path.name, SETTINGS)
        with h5py.File(tmp_path / "scan" / path.name) as file:
            assert (file["mask"][()] == sampled).all()
            assert file.attrs["true_acceleration"] == 138 / sampled.sum()
            assert "reconstruction_esc" not in file
        assert reconstruct_volume(tmp_path / "scan" / path.name, 0.003).shape == (3, 20, 22)


def test_targets_of_others_are_scored_at_what_could_be_measured(foreign):
    path = foreign()
    with h5py.File(path, "a") as file:
        file["reconstruction_esc"] = np.ones((3, 20, 22), np.float32)
        file.attrs["acceleration"] = 4
        sampled = MEASURED.within(file["mask"][()])
    truth = read_truth(path)
    assert (truth.nominal, truth.acceleration) == (4, 138 / sampled.sum())
    assert truth.faster == f"{138 / sampled.sum():.2f}x, nominally 4x"
    with h5py.File(path, "a") as file:
        del file["kspace"]
    assert read_truth(path).acceleration == 138 / sampled.sum()
    with h5py.File(path, "a") as file:
        del file["mask"], file.attrs["acceleration"]
    assert math.isnan(read_truth(path).acceleration)
    assert read_truth(path).faster == ""


def test_a_mask_of_padding_alone_is_refused(padded):
    path = padded()
    with h5py.File(path, "a") as file:
        file["mask"] = np.arange(WIDTH) < 5
        file["kspace"][...] = file["kspace"][()] * (np.arange(WIDTH) == 80)
    with pytest.raises(BadFileError, match="mask samples none of the columns that the scan"):
        refusals(path, SETTINGS)


def test_the_card_shows_masks_without_padding(padded, tmp_path, task):
    path = padded(folder=tmp_path / "data" / "train")
    info = task.check_case(Case("file1000001", "train", {"kspace": path}))
    record = CaseRecord("file1000001", "train", info.patient, {}, dict(info.details))
    config = compose(["demo"])
    section = config.reconstruction.model_copy(update={"undersample": SETTINGS})
    part = ReconstructionCard(config.model_copy(update={"reconstruction": section}))
    (axis,) = list(part.figures([(record, {"kspace": path})]).values())[-1].axes
    sampled = MEASURED.within(draw_mask(SETTINGS, WIDTH, name_seed(path.name)).sampled)
    assert (np.asarray(axis.images[0].get_array())[0] == sampled).all()
    assert axis.get_ylabel() == f"4x, {138 / sampled.sum():.2f}x"
