"""Parameters of reconstruction alone, run by Kubeflow in processes of this machine and by DVC: the same figures."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from condswin.config.pools import Pools
from condswin.config.profiles import compose, write_config
from condswin.config.root import Config
from condswin.networks.saving import load_model

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
WITHIN = 600.0


def start(command: list[str], folder: Path, **more: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "CONDSWIN_"))}
    environment |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        # The code beside these tests, whatever is installed.
        "PYTHONPATH": str(ROOT),
    }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=environment | more, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def tiny() -> Config:
    return compose(["demo", "tiny"], ["segmentation=null"])


@pytest.fixture(scope="module")
def runs(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Folders in which Kubeflow's local runner and DVC have run, side by side to save time."""
    kubeflow, dvc = tmp_path_factory.mktemp("kubeflow"), tmp_path_factory.mktemp("dvc")
    for folder in (kubeflow, dvc):
        write_config(tiny, folder / "params.yaml", comment="tiny")
    shutil.copy(ROOT / "dvc.yaml", dvc)
    # Stages depend on the code that they run.
    shutil.copytree(ROOT / "condswin", dvc / "condswin", ignore=shutil.ignore_patterns("__pycache__"))
    (dvc / ".dvcignore").write_text("__pycache__\n")
    site = {"DVC_NO_ANALYTICS": "true", "DVC_SITE_CACHE_DIR": str(dvc / "site")}
    assert start(["dvc", "init", "--quiet", "--no-scm"], dvc, **site).wait(WITHIN) == 0, (dvc / "log").read_text()

    # In shards, where DVC prepares all at once.
    pipeline = [sys.executable, "-m", "pipelines", "run", "--local", "--root", "outputs", "--set", "cluster.shards=2"]
    started = {
        kubeflow: start(pipeline, kubeflow),
        dvc: start(["dvc", "repro", "compare-reconstruction@reconstruction"], dvc, **site),
    }
    try:
        for folder, process in started.items():
            assert process.wait(WITHIN) == 0, (folder / "log").read_text()[-6000:]
    finally:
        for process in started.values():
            process.kill()
            process.wait()
    (run,) = (kubeflow / "outputs").iterdir()
    return run, dvc


def test_kubeflow_and_dvc_come_to_the_same_comparison(runs: tuple[Path, Path]) -> None:
    run, dvc = runs
    comparison = (run / "compare" / "comparison").read_text()
    assert comparison == (dvc / "comparison" / "reconstruction.json").read_text()
    assert json.loads(comparison)["variants"].keys() == {"swin", "conditional-light"}


def test_shards_come_to_the_data_of_one_run(runs: tuple[Path, Path]) -> None:
    run, dvc = runs
    whole = dvc / "data" / "prepared" / "reconstruction"
    assert (run / "prepare-3" / "prepared" / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()


def test_dvc_has_no_stage_of_a_task_that_is_not_there(runs: tuple[Path, Path]) -> None:
    _, dvc = runs
    listed = subprocess.run(
        [SCRIPTS / "dvc", "stage", "list", "--name-only"], cwd=dvc, capture_output=True, text=True, check=True
    )
    names = listed.stdout.split()
    assert {"ingest-reconstruction@reconstruction", "train-reconstruction@swin", "report"} <= set(names)
    assert not [name for name in names if "segmentation" in name or "-ct" in name]


def test_every_task_leaves_its_outputs(runs: tuple[Path, Path], tiny: Config) -> None:
    run, _ = runs
    # The third of these tasks brings together what two shards made.
    assert len(list(run.glob("prepare*"))) == 3
    for prepared in (run / "ingest" / "ingested", run / "prepare-3" / "prepared"):
        manifest = json.loads((prepared / "manifest.json").read_text())
        volumes = tiny.reconstruction.demo.train_volumes + tiny.reconstruction.demo.test_volumes
        assert len(manifest["cases"]) == volumes
    trained = {load_model(folder / "model")[1].variant for folder in run.glob("train*")}
    assert trained == set(tiny.reconstruction.variants)
    evaluated = {json.loads(path.read_text())["variant"] for path in run.glob("evaluate*/evaluation/metrics.json")}
    assert evaluated == set(tiny.reconstruction.variants)


def test_the_best_variant_becomes_champion(runs: tuple[Path, Path]) -> None:
    run, _ = runs
    registered = json.loads((run / "register" / "registered").read_text())
    assert registered["variant"] == json.loads((run / "compare" / "comparison").read_text())["best"]
    assert json.loads((run / "promote" / "decision").read_text())["promoted"] is True
    uri = f"sqlite:///{run.parents[1] / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    champion = client.get_model_version_by_alias(registered["name"], "champion")
    assert str(champion.version) == registered["version"]
    assert champion.tags["image"] == Pools().of("train").image
    assert champion.tags["pipeline_run"]
    assert "{{" not in champion.tags["pipeline_run"]


def test_the_champion_is_scored_watched_and_used_by_its_own_pipelines(runs: tuple[Path, Path], tiny: Config) -> None:
    """On the data that it was made from: the scores are those of its evaluation, and nothing drifted."""
    run, _ = runs
    folder = run.parents[1]

    def outputs(pipeline: str) -> Path:
        asked = [sys.executable, "-m", "pipelines", "run", "--local", "--pipeline", pipeline, "--root", pipeline]
        assert start(asked, folder).wait(WITHIN) == 0, (folder / "log").read_text()[-6000:]
        (made,) = (folder / pipeline).iterdir()
        return made

    best = json.loads((run / "compare" / "comparison").read_text())["best"]
    scores = {found["variant"]: found for path in run.glob("evaluate*/evaluation/metrics.json")
              for found in [json.loads(path.read_text())]}  # fmt: skip
    evaluated = outputs("evaluation")
    scored = json.loads((evaluated / "evaluate" / "evaluation" / "metrics.json").read_text())
    assert scored["test"] == scores[best]["test"]
    assert f"{best} alone." in (evaluated / "report" / "page").read_text()
    card = json.loads((outputs("drift") / "data-card" / "card" / "card.json").read_text())
    assert card["drift"]["largest"] == 0
    predicted = outputs("batch-predict") / "predict"
    volumes = tiny.reconstruction.demo.train_volumes + tiny.reconstruction.demo.test_volumes
    assert len(list((predicted / "predictions").glob("*.h5"))) == volumes
    assert f"# reconstruction: {volumes} files" in (predicted / "page").read_text()


def test_the_user_interface_has_pages_to_show(runs: tuple[Path, Path]) -> None:
    run, _ = runs
    assert "<html" in (run / "data-card" / "page").read_text()
    assert "compressed-sensing" in (run / "report" / "page").read_text()
    assert (run / "compare" / "table").read_text().startswith("# reconstruction: ")
    assert "# reconstruction: promoted: version 1 is champion" in (run / "promote" / "page").read_text()


def test_a_colleague_pulls_and_trains_nothing(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Their registry is empty: it gets the model. Then it has it, and nothing is to be done."""
    _, first = runs
    clone, storage = tmp_path / "clone", tmp_path / "storage"
    clone.mkdir()
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        shutil.copy(first / name, clone)
    shutil.copytree(first / "condswin", clone / "condswin", ignore=shutil.ignore_patterns("__pycache__"))
    (clone / ".dvcignore").write_text("__pycache__\n")

    def dvc(folder: Path, *arguments: str) -> str:
        process = start(["dvc", *arguments], folder, DVC_NO_ANALYTICS="true", DVC_SITE_CACHE_DIR=str(folder / "site"))
        assert process.wait(WITHIN) == 0, (folder / "log").read_text()[-6000:]
        return (folder / "log").read_text()

    dvc(clone, "init", "--quiet", "--no-scm")
    for folder in (first, clone):
        dvc(folder, "remote", "add", "--default", "--force", "storage", str(storage))
    dvc(first, "push", "--quiet")
    dvc(clone, "pull", "--quiet", "compare-reconstruction@reconstruction", "--with-deps")
    said = dvc(clone, "repro", "promote-reconstruction@reconstruction")
    run = [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]
    assert run == ["register-reconstruction@reconstruction", "promote-reconstruction@reconstruction"]
    uri = f"sqlite:///{clone / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert client.get_model_version_by_alias("condswin-reconstruction", "champion").version
    again = dvc(clone, "repro", "promote-reconstruction@reconstruction")
    assert again.count("nothing to do") == 2
    assert len(client.search_model_versions("name = 'condswin-reconstruction'")) == 1


def test_nothing_that_is_pulled_knows_where_it_was_made(runs: tuple[Path, Path]) -> None:
    _, first = runs
    stored = [path for path in (first / ".dvc" / "cache").rglob("*") if path.is_file()]
    assert stored
    for path in [*stored, first / "dvc.lock"]:
        assert str(first).encode() not in path.read_bytes(), path
