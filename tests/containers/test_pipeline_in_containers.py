"""The reconstruction half of the pipeline, each task a container of the image, through kfp's runner for Docker."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from docker_client import COMMIT, docker

from condswin.config.profiles import compose, write_config
from condswin.config.reading import parse_config
from condswin.config.root import Config
from condswin.networks.saving import load_model

pytestmark = pytest.mark.containers
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(image: str, tracking: str, tmp_path_factory: pytest.TempPathFactory) -> Config:
    values = compose(["demo", "tiny"]).model_dump(mode="json")
    pools = tmp_path_factory.mktemp("pools") / "pools.yaml"
    pools.write_text(f"pools: {{default: {{image: '{image}'}}}}\n")
    values["cluster"]["pools"] = str(pools)
    values["tracking"]["uri"] = tracking
    return parse_config(values, origin="test")


@pytest.fixture(scope="module")
def outputs(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one run's outputs."""
    folder = tmp_path_factory.mktemp("pipeline")
    write_config(config, folder / "params.yaml", comment="tiny, in containers")
    root = folder / "outputs"
    root.mkdir()
    root.chmod(0o777)  # if root starts the tasks, they run as the image's user
    command = [sys.executable, "-m", "pipelines", "run", "--docker", "--task", "reconstruction", "--root", str(root)]
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
    )
    assert ended.returncode == 0, ended.stdout[-6000:]
    (run,) = root.iterdir()
    return run


def test_every_task_leaves_its_outputs(outputs: Path, config: Config) -> None:
    """Asserted file by file: kfp takes a container that is gone before it looks for a success."""
    section = config.reconstruction
    for manifest in ("ingest/ingested/manifest.json", "prepare/prepared/manifest.json"):
        cases = json.loads((outputs / manifest).read_text())["cases"]
        assert len(cases) == section.demo.train_volumes + section.demo.test_volumes
    assert {load_model(folder / "model")[1].variant for folder in outputs.glob("train*")} == set(section.variants)
    metrics = [json.loads(path.read_text()) for path in outputs.glob("evaluate*/evaluation/metrics.json")]
    assert {each["variant"] for each in metrics} == set(section.variants)
    assert all(each["test"]["psnr"]["mean"] > 0 for each in metrics)
    assert list(outputs.glob("evaluate*/evaluation/pictures/*.png"))
    comparison = json.loads((outputs / "compare" / "comparison").read_text())
    assert comparison["best"] in comparison["variants"]
    assert comparison["variants"].keys() == section.variants.keys()


def test_best_variant_becomes_champion(outputs: Path, config: Config) -> None:
    assert json.loads((outputs / "promote" / "decision").read_text())["promoted"] is True
    registered = json.loads((outputs / "register" / "registered").read_text())
    client = mlflow.MlflowClient(tracking_uri=config.tracking.uri, registry_uri=config.tracking.uri)
    champion = client.get_model_version_by_alias(registered["name"], "champion")
    assert str(champion.version) == registered["version"]
    assert champion.tags["git_commit"] == COMMIT


def test_tasks_did_not_run_as_root(outputs: Path) -> None:
    owners = {path.stat().st_uid for path in (outputs, *outputs.rglob("*"))}
    assert owners == {os.getuid() or 10001}


def test_no_container_is_left(outputs: Path, image: str) -> None:
    assert not docker("ps", "--all", "--quiet", "--filter", f"ancestor={image}")
