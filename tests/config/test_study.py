from pathlib import Path

import pytest

from condswin.config.profiles import compose
from condswin.config.study import STUDIES, load_study
from condswin.errors import ConfigError
from condswin.networks.models import create_model
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load


@pytest.mark.parametrize("name", [path.stem for path in sorted(STUDIES.glob("*.yaml"))])
def test_ready_studies_can_be_built(name: str) -> None:
    task = load(Learning, "reconstruction", compose(["demo"]))
    for row in load_study(name, "reconstruction").variants.values():
        inside, outside = task.channels(row.network)
        create_model(row.network, preset=row.preset, in_channels=inside, out_channels=outside, **row.overrides)


def test_unknown_studies_and_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing: no such file.*there are: design, gates, gates-unrolled, "):
        load_study("nothing", "reconstruction")
    with pytest.raises(ConfigError, match="did you mean 'routing'"):
        load_study("routin", "reconstruction")
    (tmp_path / "study.yaml").write_text("variants: {swin: {network: swin, presets: demo}}")
    with pytest.raises(ConfigError, match=r"study\.yaml: variants\.swin\.presets: no such key; did you mean 'preset'"):
        load_study(str(tmp_path / "study.yaml"), "reconstruction")


def test_impossible_networks_are_found_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("variants: {swin: {}, odd: {network: swin, overrides: {heads: [3, 3]}}}")
    with pytest.raises(ConfigError, match=r"study\.yaml: variants\.odd: heads\[0\]=3"):
        load_study(str(tmp_path / "study.yaml"), "reconstruction")
    with pytest.raises(ConfigError, match=r"variants\.unrolled-swin: unrolled-swin takes complex images"):
        load_study("unrolled", "segmentation")
