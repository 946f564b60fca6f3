import h5py
import numpy as np
import pytest
from PIL import Image

from condswin.config.profiles import compose
from condswin.errors import BadFileError, ConfigError
from condswin.files import write_json
from condswin.mri.config import DemoMriConfig, UndersampleConfig
from condswin.mri.demo.scans import write_demo
from condswin.mri.inputs import zero_filled_volume
from condswin.mri.metrics import psnr
from condswin.mri.pictures import picture_scan
from condswin.mri.undersample import prepare_undersampled
from condswin.networks.saving import ModelSpec, save_model
from condswin.steps.gallery import TABLE, gallery


@pytest.fixture
def scans(tmp_path):
    write_demo(tmp_path / "scans", DemoMriConfig(train_volumes=1, test_volumes=1, slices=2, size=32), 3, lambda: None)
    return sorted((tmp_path / "scans").rglob("*.h5"))


def test_a_row_per_file_and_rival_and_a_picture_per_file(scans, tmp_path):
    written = gallery(compose(["demo"]), scans, models=[], weight=0.003, out=tmp_path / "out")
    assert [path.name for path in written] == ["file1000001.png", "file1002001.png", TABLE]
    rows = (tmp_path / "out" / TABLE).read_text().splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["zero-filled", "compressed sensing"] * 2
    # Total variation lifts the PSNR of piecewise smooth images.
    zero_filled, sensed = (float(row.split(" | ")[2]) for row in rows[:2])
    assert sensed > zero_filled
    assert all(np.asarray(Image.open(path)).std() > 10 for path in written[:2])


def test_networks_stand_beside_classical_methods(scans, tmp_path):
    overrides = {"embedding": 16, "heads": [2, 2]}
    spec = ModelSpec(
        "reconstruction", "swin", "swin", "demo", in_channels=1, out_channels=1, overrides=overrides, provenance={}
    )
    save_model(tmp_path / "models" / "untrained", spec.build(), spec)
    models = [str(tmp_path / "models" / "untrained")]
    gallery(compose(["demo"]), scans[:1], models=models, weight=0.003, out=tmp_path / "out")
    rows = (tmp_path / "out" / TABLE).read_text().splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["zero-filled", "compressed sensing", "untrained"]
    assert len({row.split(" | ")[2] for row in rows}) == 3


@pytest.fixture
def prospective(scans, tmp_path):
    """A scan that was undersampled by the scanner: k-space, mask and header, nothing else."""
    prepare_undersampled(scans[1], tmp_path / "clinic" / "scan.h5", UndersampleConfig(mask="equispaced_fraction"))
    with h5py.File(tmp_path / "clinic" / "scan.h5", "a") as file:
        for name in ("reconstruction_esc", "zero_filled"):
            del file[name]
        for name in list(file.attrs):
            del file.attrs[name]
    return tmp_path / "clinic" / "scan.h5"


def rows_of(folder):
    return [row.strip("| ").split(" | ") for row in (folder / TABLE).read_text().splitlines()[2:]]


def test_scans_without_target_have_pictures_but_no_scores(prospective, scans, tmp_path, monkeypatch):
    drawn = {}

    def picture(title, mask, images):
        drawn.update(images, title=title, mask=mask)
        return picture_scan(title, mask, images)

    monkeypatch.setattr("condswin.steps.gallery.picture_scan", picture)
    # A name that matplotlib's parser of formulas fails on.
    prospective = prospective.rename(prospective.with_name(r"scan$\frac{1}{$.h5"))
    config = compose(["demo"])
    written = gallery(config, [prospective], models=[], weight=0.003, out=tmp_path / "out")
    assert [path.name for path in written] == [f"{prospective.stem}.png", TABLE]
    rows = rows_of(tmp_path / "out")
    assert [row[1:] for row in rows] == [["zero-filled", "-", "-", "-"], ["compressed sensing", "-", "-", "-"]]
    assert np.asarray(Image.open(written[0])).std() > 10
    # They are those of the same scan with its target.
    with h5py.File(prospective) as file:
        mask = file["mask"][()]
    assert (drawn["mask"] == mask).all()
    zero_filled = zero_filled_volume(prospective, config.reconstruction.undersample).numpy()
    assert (drawn["zero-filled"] == zero_filled).all()
    with h5py.File(scans[1]) as file:
        target = file["reconstruction_esc"][()]
    assert psnr(target, drawn["compressed sensing"]) > psnr(target, zero_filled)


def test_a_mask_of_one_s_own_is_kept_and_scored_where_there_is_a_target(prospective, scans, tmp_path):
    with h5py.File(prospective, "a") as file, h5py.File(scans[1]) as source:
        file["reconstruction_rss"] = source["reconstruction_esc"][()]
        mask = file["mask"][()]
    gallery(compose(["demo"]), [prospective], models=[], weight=0.003, out=tmp_path / "out")
    (zero_filled, sensed) = rows_of(tmp_path / "out")
    assert float(sensed[2]) > float(zero_filled[2]) > 10
    assert zero_filled[0].startswith("scan.h5, ")
    assert float(zero_filled[0].split(", ")[1].rstrip("x")) == pytest.approx(mask.size / mask.sum(), rel=0.1)


def test_a_fully_sampled_scan_without_target_is_masked_first(scans, tmp_path):
    with h5py.File(scans[0], "a") as file:
        del file["reconstruction_esc"]
    gallery(compose(["demo"]), scans[:1], models=[], weight=0.003, out=tmp_path / "out")
    assert [row[2] for row in rows_of(tmp_path / "out")] == ["-", "-"]


@pytest.mark.parametrize("undersampled", [False, True])
def test_coils_are_combined_where_that_was_asked_for(scans, prospective, tmp_path, undersampled):
    path = prospective if undersampled else scans[0]
    with h5py.File(path, "a") as file:
        kspace = file["kspace"][()]
        del file["kspace"]
        file["kspace"] = np.stack([0.6 * kspace, 0.8j * kspace], axis=1)
    with pytest.raises(BadFileError, match=r"set reconstruction\.ingest\.multicoil to combine"):
        gallery(compose(["demo"]), [path], models=[], weight=0.003, out=tmp_path / "out")
    config = compose(["demo"], ["reconstruction.ingest.multicoil=combine"])
    gallery(config, [path], models=[], weight=0.003, out=tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 2


def test_the_weight_is_what_compressed_sensing_chose(scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="run `condswin baseline reconstruction`"):
        gallery(compose(["demo"]), scans, models=[], weight=None, out=tmp_path / "out")
    write_json(tmp_path / "evaluation/reconstruction/compressed-sensing/metrics.json", {"settings": {"weight": 0.01}})
    tables = []
    for weight in (None, 0.01, 0.0001):
        gallery(compose(["demo"]), scans, models=[], weight=weight, out=tmp_path / "out")
        tables.append((tmp_path / "out" / TABLE).read_text())
    assert tables[0] == tables[1] != tables[2]
