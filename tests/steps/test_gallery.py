import numpy as np
import pytest
from PIL import Image

from condswin.config.profiles import compose
from condswin.errors import ConfigError
from condswin.files import write_json
from condswin.mri.config import DemoMriConfig
from condswin.mri.demo.scans import write_demo
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


def test_the_weight_is_what_compressed_sensing_chose(scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="run `condswin baseline`"):
        gallery(compose(["demo"]), scans, models=[], weight=None, out=tmp_path / "out")
    write_json(tmp_path / "evaluation/reconstruction/compressed-sensing/metrics.json", {"weight": 0.01})
    tables = []
    for weight in (None, 0.01, 0.0001):
        gallery(compose(["demo"]), scans, models=[], weight=weight, out=tmp_path / "out")
        tables.append((tmp_path / "out" / TABLE).read_text())
    assert tables[0] == tables[1] != tables[2]
