from pathlib import Path

import pytest

from condswin.cli.options import read_or_demo
from condswin.config.profiles import compose, write_config
from condswin.errors import ConfigError


def test_parameters_without_the_task_keep_the_registry_and_what_is_set(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    mri_only = compose(["demo"], ["seed=5", "tracking.uri=http://127.0.0.1:1"]).model_copy(
        update={"segmentation": None}
    )
    write_config(mri_only, path, comment="one task")
    found = read_or_demo("segmentation", path, ["segmentation.predict.minimum_lesion=7"])
    assert found.segmentation.predict.minimum_lesion == 7  # type: ignore[attr-defined]
    assert (found.seed, found.tracking.uri) == (5, "http://127.0.0.1:1")
    found = read_or_demo("segmentation", path, ["tracking.uri=http://127.0.0.1:2", "reconstruction.predict.adapt=3"])
    assert found.tracking.uri == "http://127.0.0.1:2"
    assert found.segmentation == compose(["demo"]).segmentation  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="minimum_lesions: no such key"):
        read_or_demo("segmentation", path, ["segmentation.predict.minimum_lesions=7"])
    # What is there is not the demo's.
    kept = read_or_demo("reconstruction", path, ["reconstruction.predict.adapt=3"])
    assert (kept.reconstruction.predict.adapt, kept.present) == (3, ("reconstruction",))  # type: ignore[attr-defined]
