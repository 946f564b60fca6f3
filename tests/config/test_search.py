from pathlib import Path

import pytest

from condswin.config.profiles import compose
from condswin.config.search import SEARCHES, Range, load_search
from condswin.errors import ConfigError


@pytest.mark.parametrize("task", ["reconstruction", "segmentation"])
@pytest.mark.parametrize("name", [path.stem for path in sorted(SEARCHES.glob("*.yaml"))])
def test_ready_searches_suit_all_tasks(name: str, task: str) -> None:
    assert load_search(name, compose(["demo"]), task, "swin").space


def test_whole_numbers_and_others_are_told_apart() -> None:
    assert Range(low=8, high=32, step=8).ends == [8, 32]
    assert all(type(end) is int for end in Range(low=8, high=32, step=8).ends)
    assert all(type(end) is float for end in Range(low=0, high=1).ends)
    assert Range(choices=[None, "a", [2, 4]]).ends == [None, "a", [2, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space: {train.learning_rat: {low: 0.1, high: 0.2}}", "train.learning_rat: no such key; did you mean 'lear"),
        ("space: {train.learning_rate: {low: 0.1, hihg: 0.2}}", "train.learning_rate.hihg: no such key; did you me"),
        ("space: {train.learning_rate: {low: 0.1}}", "train.learning_rate: Value error, give low and high, or choices"),
        ("space: {train.learning_rate: {low: 0.1, choices: [1]}}", "choices take no low"),
        ("space: {train.learning_rate: {low: 0.2, high: 0.1}}", "low must be less than high"),
        ("space: {train.learning_rate: {low: 0.0, high: 0.1, log: true}}", "and above 0 with log"),
        (
            "space: {train.learning_rate: {low: 0.1, high: 2}}",
            "learning_rate of 2.0: reconstruction.train.learning_rat",
        ),
        ("space: {train.batch_size: {low: 1.5, high: 4, step: 1}}", "with step low and high are whole numbers"),
        ("space: {train.batch_size: {low: 1, high: 4}}", "`step: 1` draws whole numbers"),
        ("space: {variants.swin.overrides.stem_channels: {low: 1, high: 4}}", "`step: 1` draws whole numbers"),
        ("space: {variants.swin.overrides.stem_chanels: {choices: [8]}}", "did you mean 'stem_channels'"),
        ("space: {variants.swim.preset: {choices: [demo]}}", "swim.preset: not what decides a training of swin; give"),
        ("space: {seed: {choices: [1, 2]}}", "space.seed: not what decides a training of swin"),
        ("space: {learning_rate: {choices: [1, 2]}}", "did you mean 'train.learning_rate'?"),
        (
            "space: {train.optimizer: {choices: [adam, sgd]}}",
            "optimizer of 'sgd': reconstruction.train.optimizer: Input",
        ),
        ("space: {train.schedule: {choices: [{name: step}, {nam: step}]}}", "schedule.nam: no such key; did you mean"),
        ("space: {}", "space: Dictionary should have at least 1 item"),
        ("{pruner: medain, space: {train.epochs: {choices: [1]}}}", "pruner: Input should be .* did you mean 'median'"),
    ],
)
def test_what_cannot_be_searched_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")) as refused:
        load_search(str(file), compose(["demo"]), "reconstruction", "swin")
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)


def test_unknown_searches_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'learning'"):
        load_search("lerning", compose(["demo"]), "reconstruction", "swin")
