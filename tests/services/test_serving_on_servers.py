"""Serving what a team's registry has: real HTTP requests to networks behind MLflow, PostgreSQL and S3."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import mlflow
import nibabel as nib
import numpy as np
import pytest
import requests
import torch

from condswin.config.names import TaskName
from condswin.config.profiles import compose
from condswin.config.root import Config, TrackingConfig
from condswin.networks.presets import INPUT_CHANNELS, OUTPUT_CHANNELS
from condswin.networks.saving import ModelSpec, load_model, save_model
from condswin.registry.aliases import CHAMPION
from condswin.registry.package import PACKAGE, ModelAlteredError, log_package, model_name
from condswin.registry.tracking import connect, tracked_run
from condswin.steps.demo_data import demo_data
from condswin.steps.predict import predict
from condswin.steps.serve import serve
from condswin.steps.serve_manifest import manifest
from tests.services.conftest import Bucket, MlflowServer

pytest_plugins = ["tests.registry.fixtures"]
pytestmark = pytest.mark.services

SMALL = {"embedding": 8, "heads": [2, 2], "stem_channels": 4}
DEMO = [
    *("reconstruction.demo.train_volumes=2", "reconstruction.demo.test_volumes=1", "reconstruction.demo.slices=2"),
    *("segmentation.demo.cases=3", "segmentation.demo.slices=8", "segmentation.demo.size=64"),
]
SHAPES: dict[TaskName, tuple[int, int]] = {"reconstruction": (1, 1), "segmentation": (4, 3)}


@pytest.fixture
def config(mlflow_server: MlflowServer, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """Both tasks with an untrained champion each, for a client without a key of the bucket."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = compose(["demo"], DEMO).model_copy(update={"tracking": TrackingConfig(uri=mlflow_server.uri)})
    yield found
    client = connect(found)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)


def crown(config: Config, task: TaskName, folder: Path, network: str = "swin") -> Path:
    torch.manual_seed(0)
    channels, classes = SHAPES[task] if network == "swin" else (INPUT_CHANNELS, OUTPUT_CHANNELS)
    parameters = {"data": config.task(task).prepared_with(), "train": config.task(task).train.model_dump(mode="json")}
    spec = ModelSpec(task, network, network, "demo", channels, classes, SMALL, {"parameters": parameters})
    save_model(folder / task, spec.build(), spec)
    with tracked_run(config, "package"):
        uri, digest, _ = log_package(folder / task)
        mlflow.register_model(uri, model_name(task), tags={PACKAGE: digest})
    connect(config).set_registered_model_alias(model_name(task), CHAMPION, "1")
    return folder / task


@contextmanager
def served(config: Config, task: TaskName, *more: str) -> Iterator[str]:
    """`condswin serve` in a process of its own; its address."""
    arguments = ["serve", f"models:/{model_name(task)}@{CHAMPION}", "--port", "0", *more]
    script = "from condswin.cli import main; main()"
    command = [sys.executable, "-c", script, *arguments, "--set", f"tracking.uri={config.tracking.uri}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"models:/{model_name(task)}/1: http://127.0.0.1:"), line
        yield line.split()[1]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM


@pytest.mark.parametrize("task", ["reconstruction", "segmentation"])
def test_a_champion_answers_with_what_predict_writes(
    task: TaskName, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = crown(config, task, tmp_path)
    demo = Path(config.task(task).source)
    demo_data(config, task, out=demo)
    source = next(path for path in sorted(demo.rglob("*")) if path.name.startswith(("file", "volume")))
    (expected,) = predict(config, [source], model=f"models:/{model_name(task)}/1", out=tmp_path / "out", force=True)
    with served(config, task) as address:
        files = f"{address}/files?name={source.name}"
        answer = requests.post(f"{files}&force=1", data=source.read_bytes(), timeout=300)
        assert answer.status_code == 200, answer.text
        assert answer.headers["X-Condswin-Model"] == f"models:/{model_name(task)}/1"
        assert expected.name in answer.headers["Content-Disposition"]
        got = tmp_path / expected.name
        got.write_bytes(answer.content)
        if task == "reconstruction":
            with h5py.File(got) as one, h5py.File(expected) as other:
                assert np.array_equal(one["reconstruction"][()], other["reconstruction"][()])
        else:
            assert np.array_equal(nib.load(got).get_fdata(), nib.load(expected).get_fdata())
        # What is damaged or no file of the model's, and a name that is a path.
        cut = requests.post(files, data=source.read_bytes()[:1000], timeout=60)
        assert (cut.status_code, list(cut.json())) == (422, ["error"])
        assert str(tmp_path) not in cut.text
        assert requests.post(f"{address}/files?name=../x.h5", data=b"", timeout=60).status_code == 422
        # MLflow's own protocol, on the package's code.
        images = np.random.default_rng(0).standard_normal((2, SHAPES[task][0], 16, 16), dtype=np.float32)
        answer = requests.post(f"{address}/invocations", json={"inputs": images.tolist()}, timeout=60)
        with torch.inference_mode():
            wanted = load_model(network)[0](torch.from_numpy(images)).numpy()
        assert np.allclose(answer.json()["predictions"], wanted, atol=1e-4)
    with pytest.raises(requests.ConnectionError):
        requests.get(address, timeout=5)


@pytest.mark.parametrize(("task", "network"), [("reconstruction", "unrolled-swin"), ("segmentation", "swin")])
def test_mlserver_answers_by_the_v2_protocol(
    task: TaskName, network: str, config: Config, tmp_path: Path, mlserver: Path
) -> None:
    """Undersampled k-space (its image and mask) and windowed CT, as arrays of more than one size."""
    model, _ = load_model(crown(config, task, tmp_path, network))
    name = model_name(task)
    with served(config, task, "--mlserver", str(mlserver)) as address:
        described = requests.get(f"{address}/v2/models/{name}", timeout=30).json()
        channels, classes = (described[side][0]["shape"][1] for side in ("inputs", "outputs"))
        assert described["inputs"][0]["shape"] == [-1, channels, -1, -1]
        for batch, width in ((1, 32), (3, 20)):
            images = np.random.default_rng(width).standard_normal((batch, channels, 16, width), dtype=np.float32)
            if task == "reconstruction":
                images[:, 2] = np.arange(width) % 3 == 0
            wanted = [{"name": "images", "shape": images.shape, "datatype": "FP32", "data": images.ravel().tolist()}]
            answer = requests.post(f"{address}/v2/models/{name}/infer", json={"inputs": wanted}, timeout=60)
            assert answer.status_code == 200, answer.text
            (output,) = answer.json()["outputs"]
            assert (answer.json()["model_version"], output["shape"]) == ("1", [batch, classes, 16, width])
            with torch.inference_mode():
                expected = model(torch.from_numpy(images)).numpy()
            assert np.allclose(np.reshape(output["data"], output["shape"]), expected, atol=1e-5)
        wrong = [{"name": "images", "shape": [1, 7, 16, 16], "datatype": "FP32", "data": [0.0] * 7 * 256}]
        assert requests.post(f"{address}/v2/models/{name}/infer", json={"inputs": wrong}, timeout=60).status_code >= 400
        assert requests.get(f"{address}/v2/health/ready", timeout=30).ok


def test_the_artifact_that_a_manifest_pins_is_the_package(config: Config, tmp_path: Path, s3: Bucket) -> None:
    crown(config, "reconstruction", tmp_path)
    uri = f"models:/{model_name('reconstruction')}@{CHAMPION}"
    made = manifest(config, uri, runtime="mlserver", artifacts=f"s3://{s3.name}/mlflow")
    key = made["spec"]["predictor"]["model"]["storageUri"].removeprefix(f"s3://{s3.name}/")
    description = s3.client().get_object(Bucket=s3.name, Key=f"{key}/MLmodel")["Body"].read()
    assert b"loader_module: mlflow.pyfunc.loaders.code_model" in description
    # Whoever may write to the bucket changes a byte: nothing is started.
    s3.client().put_object(Bucket=s3.name, Key=f"{key}/MLmodel", Body=description + b"\n")
    with pytest.raises(ModelAlteredError, match="not those that were registered"):
        serve(config, uri, host="127.0.0.1", port=0)
