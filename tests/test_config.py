import json
from pathlib import Path
from typing import Any

import pytest

from condswin.config import TASKS, compose, load_config, parse_config, profile_names, write_config
from condswin.errors import ConfigError
from condswin.networks import PRESETS, create_model, list_variants

ROOT = Path(__file__).parents[1]


def changed(path: str, value: Any) -> dict[str, Any]:
    values = compose(["demo"]).model_dump(mode="json")
    section = values
    *parents, last = path.split(".")
    for parent in parents:
        section = section[parent]
    section[last] = value
    return values


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
        ("segmentation.prepare", {"window": [100.0, -100.0]}),
        ("segmentation.train.foreground", 2.0),
        ("reconstruction.train.epoch", 3),
        ("seed", True),
        ("reconstruction.variants", {}),
    ],
)
def test_bad_values_are_refused_with_the_path_of_their_key(path: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"params\.yaml: {path}"):
        parse_config(changed(path, value), origin="params.yaml")


def test_all_bad_keys_are_listed_at_once() -> None:
    values = changed("reconstruction.train.epochs", 0)
    values["segmentation"]["train"]["batch_size"] = 0
    with pytest.raises(ConfigError) as caught:
        parse_config(values, origin="params.yaml")
    assert "reconstruction.train.epochs" in str(caught.value)
    assert "segmentation.train.batch_size" in str(caught.value)


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


def test_written_parameters_are_read_back(tmp_path: Path) -> None:
    config = compose(["demo"])
    write_config(config, tmp_path / "params.yaml", comment="two\nlines")
    assert load_config(tmp_path / "params.yaml") == config
    assert (tmp_path / "params.yaml").read_text().startswith("# two\n# lines\n")


def test_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 readers take 1e-4 for a text."""
    path = tmp_path / "params.yaml"
    write_config(compose(["demo"]), path, comment="")
    text = path.read_text()
    assert "learning_rate: 0.004" in text
    path.write_text(text.replace("learning_rate: 0.004", "learning_rate: 1e-4"))
    assert load_config(path).reconstruction.train.learning_rate == 1e-4


@pytest.mark.parametrize(
    "names", [["demo"], ["demo", "tiny"], ["thesis-fastmri"], ["thesis-lits"], ["thesis-fastmri", "thesis-lits"],
              ["thesis-fastmri", "cluster"], ["demo", "cluster"]]
)  # fmt: skip
def test_profiles_compose_into_networks_that_exist(names: list[str]) -> None:
    config = compose(names)
    for task in TASKS:
        for variant, chosen in config.task(task).variants.items():
            assert variant in list_variants()
            assert chosen.preset in PRESETS
            if chosen.preset == "demo":
                create_model(variant, preset=chosen.preset, **chosen.overrides)


def test_thesis_profiles_are_the_slides() -> None:
    config = compose(["thesis-fastmri", "thesis-lits"])
    for task in TASKS:
        train = config.task(task).train
        assert (train.optimizer, train.learning_rate, train.gradient_clip) == ("adam", 1e-4, 0.5)
        assert (train.schedule.name, train.schedule.step_size, train.schedule.gamma) == ("step", 8, 0.8)
    assert config.reconstruction.train.loss == "mse"
    assert config.segmentation.train.loss == "cross_entropy"
    assert (config.reconstruction.train.epochs, config.segmentation.train.epochs) == (26, 30)


def test_later_profiles_win_and_others_stay() -> None:
    config = compose(["demo", "tiny"])
    assert config.reconstruction.demo.size == 32
    assert config.reconstruction.train.schedule == compose(["demo"]).reconstruction.train.schedule
    assert set(config.reconstruction.variants) == {"swin", "conditional-light"}


def test_unknown_profiles_are_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match=", ".join(profile_names())):
        compose(["gigantic"])


def test_the_committed_parameters_are_the_demo_profile() -> None:
    assert load_config(ROOT / "params.yaml") == compose(["demo"])


def test_configs_survive_json() -> None:
    config = compose(["demo"])
    assert parse_config(json.loads(json.dumps(config.model_dump(mode="json"))), origin="json") == config
