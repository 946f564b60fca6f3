import json
from pathlib import Path

import pytest

from tests.cli.calling import condswin


def test_settings_other_than_the_presets(tmp_path: Path) -> None:
    out = tmp_path / "costs.json"
    command = ["bench", "conditional-light", "--preset", "demo", "--size", "32", "--rounds", "1"]
    shown = condswin(
        *command, "--override", "light_attention=0.5", "--override", "window=[4, 8]", "--out", str(out), cwd=tmp_path
    )
    assert "demo, light_attention 0.5, window [4, 8], 1 x 32 x 32" in shown
    written = json.loads(out.read_text())
    assert written["overrides"] == {"light_attention": 0.5, "window": [4, 8]}
    whole = json.loads(condswin(*command, "--json", cwd=tmp_path))["conditional-light"]
    half = written["costs"]["conditional-light"]
    assert half["flops"]["light"] < whole["flops"]["light"]
    assert half["parameters"] < whole["parameters"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("light_attentio=0.5", "has no setting 'light_attentio'; did you mean 'light_attention'"),
        ("light_attention=0.3", "light_attention=0.3: 9.6 channels of stage 0 must be shared out to 1 heads"),
        ("in_channels=3", "has no setting 'in_channels'"),
        ("preset=base", "preset"),
        ("light_attention", "--override light_attention: not of the form"),
    ],
)
def test_settings_that_networks_do_not_have(tmp_path: Path, override: str, said: str) -> None:
    err = condswin("bench", "conditional-light", "--preset", "demo", "--override", override, cwd=tmp_path, code=1)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
