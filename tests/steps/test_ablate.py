import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from torch import nn

from condswin.config.root import Config
from condswin.config.task import Study
from condswin.errors import OutputError
from condswin.manifest import Manifest
from condswin.networks.costs import count_flops
from condswin.networks.models import create_model
from condswin.steps import ablate as step
from condswin.steps.ablate import ablate
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.training.fit import Fitted
from condswin.validity import Key

TASK = "reconstruction"
SMALL = {"embedding": 16, "heads": [2, 2], "stem_channels": 8}


@pytest.fixture(scope="module")
def world(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    folder = tmp_path_factory.mktemp("ablation")
    config = tiny.model_copy(update={TASK: tiny.reconstruction.model_copy(update={"source": str(folder / "raw")})})
    demo_data(config, TASK, out=folder / "raw")
    ingest(config, TASK, source=str(folder / "raw"), out=folder / "ingested")
    prepare(config, TASK, ingested=folder / "ingested", out=folder / "prepared")
    return config, folder


def study(**networks: dict[str, object]) -> Study:
    return Study.model_validate({"variants": {name.replace("_", " "): row for name, row in networks.items()}})


def test_networks_are_trained_with_each_seed_and_set_side_by_side(world: tuple[Config, Path], tmp_path: Path) -> None:
    config, folder = world
    networks = study(
        swin={"network": "swin", "overrides": SMALL},
        swin_unrolled={"network": "unrolled-swin", "overrides": {**SMALL, "cascades": 1}},
    )
    arguments = {"prepared": folder / "prepared", "also": [folder / "raw" / "singlecoil_val"], "out": tmp_path / "out"}
    table = ablate(config, TASK, networks, seeds=2, **arguments)
    assert (tmp_path / "out" / "ablation.md").read_text() == table
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["network", "swin", "swin unrolled", "against swin", "swin unrolled"]
    assert rows[0][1:3] == ["parameters", "GFLOPs"]
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [(r["network"], r["seed"]) for r in found["results"]] == [
        (name, seed) for seed in (10, 11) for name in ("swin", "swin unrolled")
    ]
    first, second = found["results"][0]["scores"], found["results"][2]["scores"]
    assert first["test"]["psnr"] != second["test"]["psnr"]
    # The other folder holds the raw files of the test split: undersampled alike, they score alike.
    assert first["singlecoil_val"]["psnr"] == pytest.approx(first["test"]["psnr"], abs=1e-6)
    mean = (first["test"]["psnr"] + second["test"]["psnr"]) / 2
    assert rows[1][3].startswith(f"{mean:+.3f} ± ")
    # Differences are paired by seed; with two of them Student's t has one degree of freedom.
    others = [result["scores"]["test"]["psnr"] for result in found["results"][1::2]]
    one, two = others[0] - first["test"]["psnr"], others[1] - second["test"]["psnr"]
    middle, reach = (one + two) / 2, 12.706 * abs(one - two) / 2
    assert rows[4][1] == f"{middle:+.3f} ({middle - reach:+.3f} to {middle + reach:+.3f})"
    # Operations are those of `condswin bench`, attention among them.
    image = load(Learning, TASK, config).dataset(folder / "prepared", "test", "swin", training=False)[0]["image"]
    flops = count_flops(create_model("swin", preset="demo", **SMALL), image[None])
    assert found["costs"]["swin"]["gflops"] == flops.total / 1e9
    assert rows[1][2] == f"{flops.total / 1e9:.2f}"

    # Again: nothing is trained, and one more seed trains that seed only.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("scores.json")}
    timed = ablate(config, TASK, networks, seeds=2, latency=1, **arguments)
    assert timed.splitlines()[0].startswith("| network | parameters | GFLOPs | ms | psnr, test |")
    assert [line for line in timed.splitlines() if " to " in line] == [
        line for line in table.splitlines() if " to " in line
    ]
    costs = json.loads((tmp_path / "out" / "ablation.json").read_text())["costs"]
    assert all(cost["milliseconds"] > 0 for cost in costs.values())
    assert ablate(config, TASK, networks, seeds=2, **arguments) == table
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("scores.json")}


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trainings asked for, which leave networks as they are."""
    labels: list[str] = []

    def fit(_: object, network: nn.Module, *arguments: object, label: str, **others: object) -> Fitted:
        labels.append(label)
        return Fitted(network.eval(), [], [])

    monkeypatch.setattr(step, "fit", fit)
    return labels


def test_other_cases_are_those_of_the_source_undersampled_as_the_parameters_say(
    world: tuple[Config, Path], tmp_path: Path, fitted: list[str]
) -> None:
    config, folder = world
    networks = study(swin={"network": "swin", "overrides": SMALL})
    raw = tmp_path / "other"
    shutil.copytree(folder / "raw" / "singlecoil_val", raw)

    def scores(config: Config, prepared: Path) -> Mapping[str, Mapping[str, float]]:
        ablate(config, TASK, networks, prepared=prepared, also=[raw], seeds=1, out=tmp_path / "out")
        (result,) = json.loads((tmp_path / "out" / "ablation.json").read_text())["results"]
        found: Mapping[str, Mapping[str, float]] = result["scores"]
        return found

    before = scores(config, folder / "prepared")
    settings = config.reconstruction.undersample.model_copy(update={"accelerations": [2], "center_fractions": [0.3]})
    section = config.reconstruction.model_copy(update={"undersample": settings})
    config = config.model_copy(update={TASK: section})
    prepare(config, TASK, ingested=folder / "ingested", out=tmp_path / "prepared")
    after = scores(config, tmp_path / "prepared")
    assert after["test"]["psnr"] != pytest.approx(before["test"]["psnr"], abs=1e-3)
    assert after["other"]["psnr"] == pytest.approx(after["test"]["psnr"], abs=1e-6)
    # A case that left is not scored any longer.
    sorted(raw.iterdir())[0].unlink()
    assert scores(config, tmp_path / "prepared")["other"]["psnr"] != pytest.approx(after["other"]["psnr"], abs=1e-6)
    assert len(fitted) == 3


@pytest.mark.parametrize("name", ["test", "checkpoints"])
def test_folders_of_other_cases_that_have_a_name_of_ours_are_refused(
    world: tuple[Config, Path], tmp_path: Path, name: str
) -> None:
    config, folder = world
    networks = study(swin={"network": "swin", "overrides": SMALL})
    also = [folder / "raw", tmp_path / name]
    with pytest.raises(OutputError, match=f"{name}: the name {name} is taken"):
        ablate(config, TASK, networks, prepared=folder / "prepared", also=also, seeds=1, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_called_data_does_not_hide_the_prepared_data(
    world: tuple[Config, Path], tmp_path: Path, fitted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = world
    shutil.copytree(folder / "raw" / "singlecoil_val", tmp_path / "data")
    keys: list[Key] = []
    make_key = step.make_key
    monkeypatch.setattr(step, "make_key", lambda *names, **asked: keys.append(make_key(*names, **asked)) or keys[-1])
    networks = study(swin={"network": "swin", "overrides": SMALL})
    arguments = {"prepared": folder / "prepared", "also": [tmp_path / "data"], "seeds": 1, "out": tmp_path / "out"}
    ablate(config, TASK, networks, **arguments)
    assert keys[0].inputs["data"] == Manifest.read(folder / "prepared", TASK).fingerprint()


def test_scores_that_no_case_defines_are_left_open(tiny: Config, tmp_path: Path) -> None:
    section = tiny.segmentation.model_copy(update={"source": str(tmp_path / "raw")})
    # With this seed the one test case has no tumour, so there is no lesion to recall.
    config = tiny.model_copy(update={"seed": 13, "segmentation": section})
    demo_data(config, "segmentation", out=tmp_path / "raw")
    ingest(config, "segmentation", source=str(tmp_path / "raw"), out=tmp_path / "ingested")
    prepare(config, "segmentation", ingested=tmp_path / "ingested", out=tmp_path / "prepared")
    networks = study(swin={"network": "swin", "overrides": {"embedding": 8, "heads": [2, 2]}})
    arguments = {"prepared": tmp_path / "prepared", "also": [], "seeds": 1, "out": tmp_path / "out"}
    ablate(config, "segmentation", networks, **arguments)
    scores = json.loads((tmp_path / "out" / "ablation.json").read_text())["results"][0]["scores"]["test"]
    assert scores["lesion_recall"] is None
    assert scores["liver_dice"] is not None

    # A kept score is shown as it stands: without a value as a dash.
    (kept,) = (tmp_path / "out").rglob("scores.json")
    known = json.loads(kept.read_text())
    known["scores"]["test"]["tumour_dice"] = None
    kept.write_text(json.dumps(known))
    row = next(line for line in ablate(config, "segmentation", networks, **arguments).splitlines() if "| swin" in line)
    assert row.endswith(f"| {scores['liver_dice']:.3f} | - |")

    # Other post-processing is another prediction.
    predict = section.predict.model_copy(update={"largest_component": not section.predict.largest_component})
    config = config.model_copy(update={"segmentation": section.model_copy(update={"predict": predict})})
    ablate(config, "segmentation", networks, **arguments)
    assert json.loads(kept.read_text())["key"] != known["key"]
