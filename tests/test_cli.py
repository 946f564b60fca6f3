"""The command line as a user meets it: a whole pipeline on the tiny profile, bad input, files without a pipeline."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import cast

import h5py
import nibabel
import numpy as np
import pytest
from mlflow import MlflowClient

from condswin.config.gate import RuleConfig
from condswin.config.names import TASKS, TaskName
from condswin.config.profiles import compose, write_config
from condswin.files import read_json, write_json
from condswin.outputs import RECORD
from condswin.registry.cards import fetch_card
from tests.cli.calling import condswin
from tests.reporting.pages import missing

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", params=TASKS)
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A working folder in which one task went from demo data to a champion, and the report was written."""
    task: str = request.param
    folder = tmp_path_factory.mktemp(task)
    # A second configuration of one network, under a label that is no network's name.
    network = {"reconstruction": "unrolled-swin", "segmentation": "swin"}[task]
    overrides = "{embedding: 16, heads: [2, 2], stem_channels: 8}"
    labelled = f"{task}.variants.stemmed={{network: {network}, overrides: {overrides}}}"
    write_config(compose(["demo", "tiny"], [labelled]), folder / "params.yaml", comment="tiny")
    prepare = "undersample" if task == "reconstruction" else "prepare-ct"
    condswin("demo-data", task, cwd=folder)
    condswin("ingest", task, cwd=folder)
    condswin(prepare, cwd=folder)
    for variant in ("swin", "conditional-light", "stemmed"):
        condswin("train", task, variant, cwd=folder)
        condswin("evaluate", task, variant, cwd=folder)
    assert "chosen on validation cases: {" in condswin("baseline", task, cwd=folder)
    assert "best on val by" in condswin("compare", task, cwd=folder)
    assert f"condswin-{task} version 1" in condswin("register", task, cwd=folder)
    assert "promoted: version 1 is champion" in condswin("promote", task, cwd=folder)
    condswin("report", cwd=folder)
    return task, folder


def test_an_up_to_date_registry_leaves_nothing_to_do_and_an_empty_one_everything(
    pipeline: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, folder = pipeline
    assert condswin("register", task, cwd=folder) == f"condswin-{task} version 1, registered already: nothing to do\n"
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri, registry_uri=uri).delete_registered_model_alias(f"condswin-{task}", "challenger")
    said = condswin("register", task, cwd=folder)
    assert said == f"condswin-{task} version 1, registered already, challenger again\n"
    again = condswin("promote", task, cwd=folder)
    assert f"promotion/{task}/promoted.json: nothing to do, version 1 is champion already" in again
    assert [json.loads(line)["event"] for line in condswin("history", task, "--json", cwd=folder).splitlines()] == [
        "registered", "promoted"]  # fmt: skip

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    config = compose(["demo", "tiny"])
    section = config.task(task)
    metric = next(iter(section.metrics))
    rules = [RuleConfig(metric=metric, floor=1000.0, of="mean")]
    strict = section.model_copy(update={"gate": section.gate.model_copy(update={"rules": rules})})
    write_config(config.model_copy(update={task: strict}), tmp_path / "strict.yaml", comment="out of reach")
    registered, decision = str(tmp_path / "registered.json"), str(tmp_path / "decision.json")
    assert condswin("register", task, "--out", registered, cwd=folder) == f"condswin-{task} version 1\n"
    options = ("--registered", registered, "--out", decision, "--params", str(tmp_path / "strict.yaml"))
    refused = "refused: version 1 is not promoted, there is no champion\n"
    said = condswin("promote", task, *options, cwd=folder)
    assert said.startswith(f"{decision}: {refused}  broken: {metric} at least 1000 on average: it is ")
    again = condswin("promote", task, *options, cwd=folder)
    assert again == said.replace(f"{decision}: ", f"{decision}: nothing to do, decided already: ")
    condswin("promote", task, *options, "--exit-code", cwd=folder, code=4)
    condswin("promote", task, *options[:4], "--set", f"{task}.gate.patients=100", "--exit-code", cwd=folder, code=5)


def test_a_data_card_is_kept_with_what_was_trained_on_its_data_alone(
    pipeline: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, folder = pipeline
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    condswin("data-card", task, cwd=folder)
    card = folder / f"report/card-{task}/card.json"
    right, register = read_json(card), ("register", task, "--out", str(tmp_path / "registered.json"))
    for content, kept in (({**right, "data_sha256": "0" * 64}, False), (right, True)):
        write_json(card, content)
        condswin(*register, cwd=folder)
        assert fetch_card(compose(["demo", "tiny"]), cast(TaskName, task), "1", tmp_path / "back") is kept
    shutil.rmtree(card.parent)


def test_an_evaluation_has_a_page_of_its_own_and_its_cases_are_viewed(pipeline: tuple[str, Path]) -> None:
    task, folder = pipeline
    evaluation = f"evaluation/{task}/swin"
    page = Path(condswin("report", evaluation, cwd=folder).strip().splitlines()[-1])
    assert page == Path("report", f"{task}-swin.html")
    text = (folder / page).read_text()
    assert "swin alone." in text
    assert "Not on patients: all test cases are generated." in text
    assert (folder / page).stat().st_size < 10_000_000
    wrong = condswin("report", evaluation, "--model", f"models/{task}/conditional-light", cwd=folder, code=1)
    assert "not the network that" in wrong
    assert wrong.count("\n") == 1
    said = condswin("view", evaluation, "--out", "case.html", cwd=folder)
    assert "case.html" in said
    found = (folder / "case.html").read_text()
    assert "zero-filled" in found if task == "reconstruction" else '"name": "target"' in found


def test_the_report_is_one_file_with_the_tables_numbers(pipeline: tuple[str, Path]) -> None:
    task, folder = pipeline
    html = (folder / "report/report.html").read_text()
    assert not missing(html, folder, task)
    generated = "The challenger was trained on generated data alone"
    for said in ("promoted: version 1 is champion", "it lets everything through", generated, "Worst cases of"):
        assert said in html
    assert html.count("data:image/png;base64,") >= 12
    assert str(folder) not in html


def test_the_summary_shows_every_variant_and_where_to_look(pipeline: tuple[str, Path]) -> None:
    task, folder = pipeline
    text = condswin("summary", cwd=folder)
    for expected in (
        "swin",
        "conditional-light",
        "stemmed",
        "report/report.html",
        "mlflow ui --backend-store-uri sqlite:///",
    ):
        assert expected in text
    method = {"reconstruction": "compressed-sensing", "segmentation": "active-contour"}[task]
    assert "best on the val cases by" in text
    assert f" minus {method}, case by case" in text
    assert text.count(method) == 2  # its row, and the gain over it
    assert ("zero-filled" in text) == (task == "reconstruction")


def test_the_champion_predicts_files_without_targets(pipeline: tuple[str, Path], tmp_path: Path) -> None:
    task, folder = pipeline
    out = tmp_path / "out"
    if task == "reconstruction":
        source = sorted((folder / "data/prepared/reconstruction/test").glob("*.h5"))[0]
        scan = tmp_path / source.name
        shutil.copy(source, scan)
        with h5py.File(scan, "r+") as file:
            for name in ("reconstruction_esc", "zero_filled"):
                del file[name]
    else:
        source = sorted((folder / "data/ingested/segmentation/test").glob("volume-*"))[0]
        scan = tmp_path / source.name
        shutil.copy(source, scan)
    condswin("predict", "--model", f"models:/condswin-{task}@champion", "--out", str(out), str(scan), cwd=folder)
    (written,) = (path for path in out.iterdir() if not path.name.startswith(RECORD))
    best = json.loads((folder / f"comparison/{task}.json").read_text())["best"]
    pipeline = folder / "evaluation" / task / best / "predictions/test" / written.name
    if task == "reconstruction":
        with h5py.File(written) as ours, h5py.File(pipeline) as theirs:
            # The version instead of the alias, which may be another's tomorrow.
            assert ours.attrs["model"] == f"models:/condswin-{task}/1"
            np.testing.assert_allclose(ours["reconstruction"], theirs["reconstruction"], rtol=1e-3, atol=1e-9)
    else:
        ours, theirs = nibabel.load(written), nibabel.load(pipeline)
        assert np.array_equal(ours.affine, theirs.affine)
        assert (np.asarray(ours.dataobj) == np.asarray(theirs.dataobj)).mean() > 0.999


def test_any_two_folders_can_be_scored(pipeline: tuple[str, Path], tmp_path: Path) -> None:
    """Targets against themselves, from a folder without parameters or pipeline."""
    task, folder = pipeline
    targets, predictions = folder / "data/prepared" / task / "test", tmp_path / "perfect"
    predictions.mkdir()
    for path in targets.iterdir():
        if task == "segmentation" and path.name.startswith("segmentation"):
            shutil.copy(path, predictions)
        elif task == "reconstruction":
            with h5py.File(path) as target, h5py.File(predictions / path.name, "w") as file:
                file["reconstruction"] = target["reconstruction_esc"][()]
    condswin("evaluate", task, "--targets", str(targets), "--predictions", str(predictions), "--out", "s", cwd=tmp_path)
    metrics = json.loads((tmp_path / "s/metrics.json").read_text())
    perfect = "ssim" if task == "reconstruction" else "liver_dice"
    assert metrics[perfect]["mean"] == pytest.approx(1)
    shutil.rmtree(predictions)
    predictions.mkdir()
    error = condswin(
        "evaluate", task, "--targets", str(targets), "--predictions", str(predictions), cwd=tmp_path, code=1
    )
    assert "no prediction for" in error


def test_a_label_is_not_its_networks_name(pipeline: tuple[str, Path]) -> None:
    task, folder = pipeline
    described = json.loads((folder / "models" / task / "stemmed" / "model.json").read_text())
    network = "unrolled-swin" if task == "reconstruction" else "swin"
    assert (described["variant"], described["network"]) == ("stemmed", network)
    # What training saw, which `predict` compares users' files with.
    assert set(described["provenance"]["seen"]) == (
        {"pixel", "slice", "plane", "height"} if task == "segmentation" else set()
    )
    assert json.loads((folder / "evaluation" / task / "stemmed" / "metrics.json").read_text())["variant"] == "stemmed"


def test_training_again_changes_nothing(pipeline: tuple[str, Path]) -> None:
    task, folder = pipeline
    model = folder / "models" / task / "swin"
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    # How many processes load slices is no part of a result's key.
    for more in ([], ["--set", f"{task}.train.workers=2"]):
        assert "trained before, nothing to do" in condswin("train", task, "swin", *more, cwd=folder)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_a_damaged_model_is_refused_by_name(pipeline: tuple[str, Path], tmp_path: Path) -> None:
    task, folder = pipeline
    model = tmp_path / "model"
    shutil.copytree(folder / "models" / task / "swin", model)
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "model.safetensors").write_bytes(bytes(content))
    error = condswin("evaluate", task, "--model", str(model), "--out", str(tmp_path / "out"), cwd=folder, code=1)
    assert "model.safetensors: checksum differs" in error
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.parametrize("task", TASKS)
def test_real_files_pass_like_generated_ones(task: str, tmp_path: Path, real_data: Path) -> None:
    values = compose(["demo", "tiny"])
    write_config(values, tmp_path / "params.yaml", comment="tiny")
    source = real_data / ("mri" if task == "reconstruction" else "ct")
    condswin("ingest", task, "--source", str(source), cwd=tmp_path)
    condswin("undersample" if task == "reconstruction" else "prepare-ct", cwd=tmp_path)
    manifest = json.loads((tmp_path / f"data/prepared/{task}/manifest.json").read_text())
    assert len(manifest["cases"]) == 2
    assert {case["split"] for case in manifest["cases"]} == {"train", "test"}


def test_bad_files_are_listed_with_reasons_and_exit_status_one(tmp_path: Path) -> None:
    write_config(compose(["demo", "tiny"]), tmp_path / "params.yaml", comment="")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/empty.h5").write_bytes(b"")
    (tmp_path / "raw/text.h5").write_text("not a scan")
    error = condswin("ingest", "reconstruction", "--source", "raw", cwd=tmp_path, code=1)
    assert "empty.h5" in error
    assert "text.h5" in error
    assert "Traceback" not in error
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").rglob("*.h5"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "restoration", "swin"], 2, "no task 'restoration'"),
        (["train", "reconstruction", "unet7"], 1, "no variant 'unet7'; there are: swin"),
        (["undersample", "--shard", "1of4"], 2, "not of the form i/n"),
        (["evaluate", "reconstruction"], 2, "give a variant"),
        (["evaluate", "reconstruction", "--targets", "x"], 2, "together"),
        (["compare", "segmentation"], 1, "no such file"),
        (["summary"], 1, "make repro"),
        (["params", "use", "huge"], 1, "no profile 'huge'"),
        (["params", "use", "demo"], 1, "--overwrite replaces"),
        (["params", "show", "--set", "seed"], 1, "not of the form KEY.KEY=VALUE"),
        (["train", "reconstruction", "conditional-lite"], 1, "did you mean 'conditional-light'"),
        (["evaluate", "reconstruction", "swim"], 1, "did you mean 'swin'"),
        (["train", "segmentaton", "swin"], 2, "did you mean 'segmentation'"),
        (["train", "segmentation", "swin", "--set", "segmentation.train.epoch=3"], 1, "did you mean 'epochs'"),
        (["ablate", "segmentation", "--study", "unroled"], 1, "did you mean 'unrolled'"),
        (["tune", "segmentation", "swin", "--search", "lerning"], 1, "did you mean 'learning'"),
        (["tune", "segmentation", "swim"], 1, "did you mean 'swin'"),
        (["tune", "segmentation", "swin", "--storage", "mysql://user:secret@host/db"], 1, "'mysql' is no database"),
        (["predict", "--model", "models/none", "--out", "o", "nowhere.h5"], 1, "nowhere.h5"),
        (["ingest", "segmentation", "--source", "nowhere"], 1, "nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_message(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    write_config(compose(["demo", "tiny"]), tmp_path / "params.yaml", comment="")
    error = condswin(*arguments, cwd=tmp_path, code=code)
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("task", TASKS)
def test_commands_for_a_task_that_is_not_there_say_so_in_one_line(task: str, tmp_path: Path) -> None:
    (other,) = set(TASKS) - {task}
    condswin("params", "use", "demo", "tiny", "--set", f"{other}=null", cwd=tmp_path)
    assert condswin("params", "tasks", cwd=tmp_path) == f"{task}\n"
    commands = [["params", "tasks", other], ["demo-data", other], ["ingest", other], ["train", other, "swin"],
                ["evaluate", other, "swin"], ["compare", other], ["register", other], ["promote", other],
                ["rollback", other], ["ablate", other], ["tune", other, "swin"], ["baseline", other],
                ["data-card", other]]  # fmt: skip
    commands += [["undersample"]] if other == "reconstruction" else [["prepare-ct"]]
    for command in commands:
        error = condswin(*command, cwd=tmp_path, code=1)
        assert error.startswith(f"error: {other}: not in these parameters"), command
        assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml"}


def test_dvc_needs_the_list_of_tasks(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("segmentation: {variants: {swin: {}}}")
    error = condswin("params", "tasks", cwd=tmp_path, code=1)
    assert """write `tasks: {"reconstruction": [], "segmentation": ["segmentation"]}`""" in error


def test_every_command_that_reads_parameters_takes_settings(tmp_path: Path) -> None:
    for command in ("demo-data", "ingest", "undersample", "prepare-ct", "train", "evaluate", "compare", "register",
                    "promote", "rollback", "predict", "ablate", "tune", "report", "summary", "baseline", "data-card",
                    "gallery", "view"):  # fmt: skip
        assert "--set" in condswin(command, "--help", cwd=tmp_path), command


def test_the_installed_command_reports_a_mistake_without_a_traceback(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "condswin"
    done = subprocess.run([command, "summary"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: params.yaml: no such file")


def test_importing_the_command_line_is_quick_because_it_loads_no_torch() -> None:
    script = (
        "import sys, condswin.cli; print([m for m in ('torch', 'mlflow', 'matplotlib', 'kfp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
