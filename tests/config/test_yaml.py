import time

import pytest

from condswin.config.reading import load_config, parse_config
from condswin.config.yaml import MAX_DEPTH, MAX_VALUES, read_yaml_text
from condswin.errors import ConfigError

LINES = [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 13)]
BOMB = "\n".join(["x0: &x0 [a, a, a, a, a, a, a, a, a]", *LINES])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, f"more than {MAX_VALUES} values"),
        ("&a [*a]", "stands within what it repeats"),
        ("a: &a {b: {c: *a}}", "stands within what it repeats"),
        ("[" * 50_000, f"nested more than {MAX_DEPTH} deep"),
        ("{a: " * 50_000, f"nested more than {MAX_DEPTH} deep"),
        ("- " * 40 + "x", f"nested more than {MAX_DEPTH} deep"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("seed: 2026-01-01", "dates in quotes"),
        ("? [a]\n: 1", "keys must be str"),
        ("seed: \x1b[2J", r"unacceptable character"),
        ("seed: " + "9" * 5000, "4300 digits"),
    ],
)
def test_texts_beyond_measure_are_refused_at_once(text, reason, tmp_path):
    (tmp_path / "params.yaml").write_text(text)
    started = time.process_time()
    with pytest.raises(ConfigError, match=r"params\.yaml: ") as refused:
        load_config(tmp_path / "params.yaml")
    assert reason in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert time.process_time() - started < 2


def test_honest_aliases_are_read():
    values = read_yaml_text("base: &b {epochs: 3, heads: &h [2, 2]}\nother: {<<: *b, heads: *h}", origin="")
    assert values["other"] == values["base"] == {"epochs": 3, "heads": [2, 2]}


@pytest.mark.parametrize("label", ["../../etc", "a/b", "-rf", "a.b", "_x", "a\nb", "[/b]", "$x$", "x" * 65, ""])
def test_labels_that_cannot_name_folders_and_models_are_refused(label):
    with pytest.raises(ConfigError, match=r"segmentation\.variants: .* names folders") as refused:
        parse_config({"segmentation": {"variants": {label: {"network": "swin"}}}}, origin="p")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("label", ["swin", "Swin_2-b", "3cascades", "x" * 64])
def test_other_labels_may_be_chosen(label):
    assert parse_config({"segmentation": {"variants": {label: {"network": "swin"}}}}, origin="p")
