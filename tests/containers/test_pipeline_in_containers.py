"""The reconstruction half of the pipeline, each task a container of the image, through kfp's runner for Docker."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from condswin.config.parts import part
from condswin.config.profiles import compose, write_config
from condswin.config.reading import parse_config
from condswin.config.root import Config
from condswin.networks.saving import load_model
from tests.containers.docker_client import COMMIT, docker

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


def test_what_a_killed_container_trained_is_kept_and_this_machine_comes_to_the_same_weights(
    outputs: Path, config: Config, image: str, tracking: str, tmp_path: Path
) -> None:
    """By Docker alone: kfp's runner may take a container that was killed for one that succeeded."""
    tmp_path.chmod(0o777)
    settings = config.reconstruction.train.model_copy(update={"epochs": 10, "checkpoint_minutes": 1e-6})
    section = config.reconstruction.model_copy(update={"train": settings})
    asked = part(config.model_copy(update={"reconstruction": section}), "train", "reconstruction", "swin")
    # Of another number of threads sums are others.
    own = {"MLFLOW_TRACKING_URI": tracking, "OMP_NUM_THREADS": "1"}
    prepared = outputs / "prepare" / "prepared"

    def start(python: list[str], model: str, prepared: str, checkpoints: str) -> subprocess.Popen[str]:
        given = (json.dumps(asked), "reconstruction", "", "swin", checkpoints, prepared, model)
        command = [*python, "-c", f"from condswin.kubeflow import train; train(*{given!r})"]
        environment = {**os.environ, **own, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def contain(model: str) -> subprocess.Popen[str]:
        command = ["docker", "run", "--rm", "--name", f"condswin-{os.getpid()}-{model}", "--network", "host"]
        command += ["--read-only", "--tmpfs", "/tmp", "--workdir", "/work"]
        command += [each for name in own for each in ("--env", name)]
        command += ["--volume", f"{prepared}:/prepared:ro", "--volume", f"{tmp_path}:/work", image, "python3"]
        return start(command, model, "/prepared", "kept")

    killed = contain("killed")
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("kept/*/*/*/epoch-0002-*.ckpt")):
        assert killed.poll() is None, killed.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    docker("kill", f"condswin-{os.getpid()}-killed")
    killed.communicate(timeout=60)
    assert killed.returncode == 137
    unbroken = start([sys.executable], "unbroken", str(prepared), "others")
    again = contain("again")
    said = [each.communicate(timeout=300)[0] for each in (again, unbroken)]
    assert (again.returncode, unbroken.returncode) == (0, 0), "".join(each[-3000:] for each in said)
    assert "swin: goes on after" in said[0]
    assert "goes on after" not in said[1]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("again", "unbroken")]
    assert weights[0] == weights[1]


def test_no_container_is_left(outputs: Path, image: str) -> None:
    assert not docker("ps", "--all", "--quiet", "--filter", f"ancestor={image}")
