"""The search pipeline: what it compiles to."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler

from condswin.config.root import Config
from condswin.errors import ConfigError
from pipelines.search import search

TASK = "reconstruction"


def compiled(config: Config, folder: Path) -> dict[str, Any]:
    compiler.Compiler().compile(search(config, (TASK,)), package_path=str(folder / "search.yaml"))
    tasks: dict[str, Any] = next(yaml.safe_load_all((folder / "search.yaml").read_text()))["root"]["dag"]["tasks"]
    return tasks


def asked(config: Config, **wanted: Any) -> Config:
    run = config.cluster.search.model_copy(update=wanted)
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"search": run})})


def test_each_trial_is_a_task_that_waits_for_the_one_before_in_its_lane(tiny: Config, tmp_path: Path) -> None:
    tasks = compiled(asked(tiny, trials=5, at_once=2, variant="swin"), tmp_path)
    trials = {name: task for name, task in tasks.items() if task["componentRef"]["name"].startswith("comp-tune")}
    assert len(trials) == 5
    lanes = []
    for task in trials.values():
        given = task["inputs"]["parameters"]
        assert given["variant"]["runtimeValue"]["constant"] == "swin"
        assert given["trials"]["runtimeValue"]["constant"] == 5
        assert not task.get("cachingOptions")
        lanes.append(given["lane"]["runtimeValue"]["constant"])
        # It waits for one verdict: of prepare, or of its lane's trial before.
        (verdict,) = [name for name in task["dependentTasks"] if name.startswith("verdict")]
        (before,) = tasks[verdict]["dependentTasks"]
        expected = given["lane"]["runtimeValue"]["constant"]
        if not before.startswith("prepare"):
            assert trials[before]["inputs"]["parameters"]["lane"]["runtimeValue"]["constant"] == expected
    assert sorted(lanes) == [0, 0, 0, 1, 1]


def test_a_volume_of_one_node_takes_one_lane(tiny: Config, tmp_path: Path) -> None:
    pools = tmp_path / "pools.yaml"
    pools.write_text(
        "pools: {default: {checkpoints: {claim: 'ckpt-{task}-{variant}', access: ReadWriteOnce}}}\n",
    )
    config = tiny.model_copy(update={"cluster": tiny.cluster.model_copy(update={"pools": str(pools)})})
    with pytest.raises(ConfigError, match=r"at_once: 2, but the volume for checkpoints is ReadWriteOnce"):
        search(config, (TASK,))
    assert compiled(asked(config, at_once=1, trials=2), tmp_path)


@pytest.mark.parametrize(
    ("wanted", "told"), [({"variant": "unet9"}, "unet9"), ({"search": "no-such"}, "no-such"), ({"search": "/"}, "/")]
)
def test_what_is_not_there_is_said_before_anything_runs(tiny: Config, wanted: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        search(asked(tiny, **wanted), (TASK,))
