import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from condswin.config.names import TASKS
from condswin.config.profiles import compose
from condswin.config.reading import load_config, parse_config, replaced, sections
from condswin.errors import ConfigError
from condswin.tasks.facts import Facts
from condswin.tasks.loading import load


def changed(path: str, value: Any) -> dict[str, Any]:
    return replaced(compose(["demo"]).values(), [f"{path}={json.dumps(value)}"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("reconstruction.train.epochs", 0),
        ("reconstruction.train.epochs", "many"),
        ("reconstruction.train.epochs", 1.5),
        ("reconstruction.train.learning_rate", -1),
        ("reconstruction.train.loss", "l3"),
        ("reconstruction.undersample.mask", "spiral"),
        ("reconstruction.undersample.center_fractions", [1.5]),
        ("reconstruction.ingest.folders", {"holdout": "x"}),
        ("segmentation.prepare", {"windows": [[100.0, -100.0]]}),
        ("segmentation.prepare", {"windows": []}),
        ("segmentation.train", {"foreground": 0.7, "tumour": 0.4}),
        ("segmentation.train.foreground", 2.0),
        ("reconstruction.train.epoch", 3),
        ("seed", True),
        ("reconstruction.variants", {}),
        ("segmentation.variants.swin.overrides", []),
    ],
)
def test_bad_values_are_refused_with_the_path_of_their_key(path: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"params\.yaml: {path}"):
        parse_config(changed(path, value), origin="params.yaml")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("reconstuction", {}, "no such key; did you mean 'reconstruction'"),
        ("reconstruction.train.epoch", 3, "no such key; did you mean 'epochs'"),
        ("segmentation.train.schedule.warmup", 3, "no such key; did you mean 'warmup_steps'"),
        ("segmentation.variants.swin.overides", {}, "no such key; did you mean 'overrides'"),
        ("reconstruction.undersample.mask", "equispaced_fractions", "did you mean 'equispaced_fraction'"),
        ("segmentation.variants.swin.network", "swim", "no network 'swim'; did you mean 'swin'"),
        ("segmentation.variants.swin.preset", "bse", "no preset 'bse'; did you mean 'base'"),
        ("segmentation.variants.swin.overrides.embeding", 8, "no setting 'embeding'; did you mean 'embedding'"),
        ("segmentation.variants.swin.overrides.embedding", "8", "embedding='8': must be an integer"),
        ("segmentation.variants.swin.overrides.heads", [3, 3], r"heads\[0\]=3: must be even"),
        ("segmentation.variants.swin.overrides.patch", 3, "patch=3: must be even"),
        ("segmentation.variants.swin.network", "unrolled-swin", "takes complex images"),
        ("segmentation.variants.swin.network", "swin-unetr", "swin-unetr has no setting 'stem_channels'"),
        ("reconstruction.variants.two.network", "unrolled-swin", None),
        ("reconstruction.variants.two.overrides", {"heads": [2, 2]}, "no network 'two'"),
    ],
)
def test_what_networks_and_metrics_there_are_is_known(path: str, value: Any, message: str | None) -> None:
    values = replaced(compose(["demo"]).values(), ["segmentation.variants.swin.overrides.stem_channels=8"])
    values = replaced(values, [f"{path}={json.dumps(value)}"])
    if message is None:
        parse_config(values, origin="params.yaml")
    else:
        key = ".".join(path.split(".")[:3]) if ".variants." in path and "overides" not in path else path
        with pytest.raises(ConfigError, match=rf"params\.yaml: {key}: .*{message}"):
            parse_config(values, origin="params.yaml")


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("https://me:hush@mlflow.example.org", False),
        ("https://hush@mlflow.example.org", False),
        ("postgresql+psycopg2://me:hush@db/mlflow", False),
        ("postgresql+psycopg2://me:x/hush@db/mlflow", False),
        ("postgresql://db/mlflow?user=me&password=hush", False),
        ("postgresql://db/mlflow?user=me&sslPassword=hush", False),
        ("https://mlflow.example.org/?key=hush", False),
        ("postgresql://me@db/mlflow", True),
        ("postgresql://me@db/mlflow?sslmode=require&sslkey=/run/secrets/key.pem", True),
        ("https://mlflow.example.org", True),
        ("sqlite:////data/a@b/mlflow.db", True),
    ],
)
def test_a_password_has_no_place_in_the_parameters_and_is_not_repeated(uri: str, allowed: bool) -> None:
    if allowed:
        assert parse_config(changed("tracking.uri", uri), origin="params.yaml").tracking.uri == uri
        return
    with pytest.raises(
        ConfigError, match=r"params\.yaml: tracking\.uri.*MLFLOW_TRACKING_URI in the environment"
    ) as error:
        parse_config(changed("tracking.uri", uri), origin="params.yaml")
    assert "hush" not in str(error.value)


def test_all_bad_keys_are_listed_at_once() -> None:
    values = changed("reconstruction.train.epochs", 0)
    values["segmentation"]["train"]["batch_size"] = 0
    with pytest.raises(ConfigError) as caught:
        parse_config(values, origin="params.yaml")
    assert "reconstruction.train.epochs" in str(caught.value)
    assert "segmentation.train.batch_size" in str(caught.value)
    values = changed("reconstruction.gate.rules", [{"metric": "psmr", "floor": 1.0}])
    values["segmentation"]["variants"]["swim"] = {}
    with pytest.raises(ConfigError) as caught:
        parse_config(values, origin="params.yaml")
    assert "did you mean 'psnr'" in str(caught.value)
    assert "did you mean 'swin'" in str(caught.value)


def test_a_label_is_a_network_unless_one_is_named() -> None:
    values = changed(
        "segmentation.variants", {"swin": {}, "small": {"network": "swin", "overrides": {"heads": [2, 2]}}}
    )
    variants = parse_config(values, origin="test").task("segmentation").variants
    assert {label: variant.network for label, variant in variants.items()} == {"swin": "swin", "small": "swin"}


@pytest.mark.parametrize(
    ("key", "rule", "message"),
    [
        ("0.metric", {"metric": "liver_dise", "floor": 0.9}, "no metric 'liver_dise'; did you mean 'liver_dice'"),
        (
            "0.metric",
            {"metric": "psnr", "floor": 0.9},
            "no metric 'psnr'; there are: liver_dice, .*lesions_false",
        ),
        ("0.metric", {"metric": "latency_ms", "superior_to": "champion"}, "has a floor or a ceiling alone"),
        ("0.metrc", {"metrc": "liver_dice", "floor": 0.9}, "no such key; did you mean 'metric'"),
        ("0.superior_to", {"metric": "liver_dice", "superior_to": "champoin"}, "did you mean 'champion'"),
        (
            "0.not_inferior_to",
            {"metric": "liver_dice", "not_inferior_to": "zero-filled", "margin": 1},
            "there are: champ",
        ),
        ("0", {"metric": "liver_dice"}, "give one of floor, ceiling, superior_to and not_inferior_to"),
        ("0", {"metric": "liver_dice", "floor": 0.0, "ceiling": 0.0}, "give one of floor"),
        ("0", {"metric": "liver_dice", "not_inferior_to": "champion"}, "needs a margin"),
        ("0", {"metric": "liver_dice", "floor": 0.9, "margin": 0.1}, "a margin belongs to"),
        ("0", {"metric": "liver_dice", "superior_to": "champion", "of": "mean"}, "`of` belongs to"),
        ("0.where.tumor_ml", {"metric": "liver_dice", "floor": 0, "where": {"tumor_ml": "> 0"}}, "mean 'tumour_ml'"),
        ("0.where.tumour_ml", {"metric": "liver_dice", "floor": 0, "where": {"tumour_ml": "big"}}, "'big' is no cond"),
        ("0.of", {"metric": "liver_dice", "floor": 0, "of": "every_cases"}, "did you mean 'every_case'"),
    ],
)
def test_rules_of_a_gate_are_checked(key: str, rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"params\.yaml: segmentation\.gate\.rules\.{key}: .*{message}"):
        parse_config(changed("segmentation.gate.rules", [rule]), origin="params.yaml")


def test_gates_have_a_rule_and_files_name_what_was_given_alone() -> None:
    with pytest.raises(ConfigError, match=r"segmentation\.gate\.rules: List should have at least 1 item"):
        parse_config(changed("segmentation.gate.rules", []), origin="params.yaml")
    rule = {"metric": "tumour_dice", "floor": 0.0, "where": {"tumour_ml": "> 0, <= 5"}}
    config = parse_config(changed("segmentation.gate.rules", [rule]), origin="params.yaml")
    assert config.values()["segmentation"]["gate"]["rules"] == [rule]


def test_sections_and_facts_agree_on_scores() -> None:
    for name in TASKS:
        facts, section = load(Facts, name, compose(["demo"])), sections()[name]
        for what in ("metrics", "further", "traits", "baselines", "reference_method"):
            assert getattr(facts, what) == getattr(section, what), what
        assert set(facts.further) <= set(facts.details)


def test_accelerations_and_centre_fractions_are_pairs() -> None:
    with pytest.raises(ConfigError, match="2 accelerations and 1 center_fractions"):
        parse_config(changed("reconstruction.undersample.accelerations", [4, 8]), origin="params.yaml")


@pytest.mark.parametrize("text", ["a: [", "\x00", "- 1\n- 2\n", "", "3"])
def test_files_that_are_no_parameters_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"params\.yaml"):
        load_config(path)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="condswin params use demo"):
        load_config(tmp_path / "params.yaml")


@pytest.mark.parametrize("task", TASKS)
def test_one_task_is_enough_and_the_other_is_missed_in_one_line(task: str) -> None:
    (other,) = set(TASKS) - {task}
    values = compose(["demo"]).values()
    del values[other], values["tasks"]
    config = parse_config(values, origin="test")
    assert config.present == (task,)
    assert config.values()["tasks"] == {task: [task], other: []}
    assert parse_config(config.values(), origin="test") == config
    with pytest.raises(ConfigError, match=rf"{other}: not in these parameters, which are for {task}") as caught:
        config.task(other)
    assert "\n" not in str(caught.value)


def test_no_task_is_too_few() -> None:
    with pytest.raises(ConfigError, match="no task; give at least one of the sections reconstruction, segmentation"):
        parse_config({"seed": 1}, origin="test")


def test_the_tasks_that_dvc_reads_are_those_of_the_sections() -> None:
    values = compose(["demo"]).values()
    del values["segmentation"]
    with pytest.raises(
        ConfigError, match=r'tasks: must be {"reconstruction": \["reconstruction"\], "segmentation": \[\]}'
    ):
        parse_config(values, origin="params.yaml")


def test_settings_replace_values(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("reconstruction: {variants: {swin: {}}}")
    config = load_config(
        path,
        [
            "reconstruction.train.epochs=3",
            "reconstruction.train.learning_rate=1e-4",
            "reconstruction.variants.swin.overrides.heads=[2, 2]",
            "reconstruction.source=s3://bucket/a=b",
            "reconstruction.drift.reference=null",
        ],
    )
    section = config.task("reconstruction")
    assert (section.train.epochs, section.train.learning_rate) == (3, 1e-4)
    assert section.variants["swin"].overrides == {"heads": [2, 2]}
    assert section.source == "s3://bucket/a=b"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed", "--set seed: not of the form KEY.KEY=VALUE"),
        ("=3", "--set =3: not of the form"),
        ("reconstruction..epochs=3", "not of the form"),
        ("seed.more=3", "--set seed.more=3: more is below a value that has no keys"),
        ("seed=[", r"--set seed=\[: not YAML"),
        ("segmentation.train.epochs=3", "segmentation is not in the parameters"),
        ("reconstruction.train.epoch=3", "did you mean 'epochs'"),
        ("reconstruction.train.epochs=three", "reconstruction.train.epochs"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, setting: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 3\nreconstruction: {variants: {swin: {}}}")
    with pytest.raises(ConfigError, match=message):
        load_config(path, [setting])


def test_configs_survive_json() -> None:
    config = compose(["demo"])
    assert parse_config(json.loads(json.dumps(config.values())), origin="json") == config
    assert parse_config(json.loads(config.model_dump_json()), origin="json") == config


def test_parameters_are_read_without_torch_in_under_a_second(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps(compose(["demo", "unrolled"]).values()))
    script = (
        "import sys; from pathlib import Path; from condswin.config.reading import load_config;"
        "load_config(Path('params.yaml'));"
        "print([name for name in ('torch', 'numpy', 'mlflow', 'matplotlib', 'kfp') if name in sys.modules])"
    )
    took = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        after = os.times()
        # The processor's, which other processes disturb less.
        took.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.stdout.strip() == "[]"
    assert 0 < min(took) < 1


def test_parameters_can_be_handed_to_another_process() -> None:
    config = compose(["demo"])
    assert pickle.loads(pickle.dumps(config)) == config
