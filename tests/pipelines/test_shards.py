"""Data that is prepared in shards: the tasks of the pipeline, and what they come to."""

from pathlib import Path

import pytest
from kfp import dsl

import components
from components.prepare import PARTS
from condswin.config.names import TASKS
from condswin.config.profiles import compose
from condswin.config.root import Config
from condswin.errors import ConfigError
from tests.components.test_contract import given, ingested
from tests.pipelines.backend import Backend, tasks_of, violations
from tests.pipelines.test_backend import ALWAYS, VERSIONS, changed, compiled, kinds


def test_shards_are_tasks_beside_each_other_and_one_brings_them_together(tmp_path: Path) -> None:
    spec = compiled(changed("cluster.shards=3"), tmp_path)
    assert not list(violations(spec))
    tasks = tasks_of(spec)
    for task in TASKS:
        prepare = {each["taskInfo"]["name"]: each for each in tasks.values()
                   if each["taskInfo"]["name"].startswith(f"prepare {task}")}  # fmt: skip
        joined = prepare.pop(f"prepare {task}")
        assert list(prepare) == [f"prepare {task} {number} of 3" for number in (1, 2, 3)]
        values = [
            [each["inputs"]["parameters"][name]["runtimeValue"]["constant"] for name in ("shard", "shards")]
            for each in prepare.values()
        ]
        assert values == [[0, 3], [1, 3], [2, 3]]
        # None waits for another; that which brings them together, for the verdict on all.
        assert len({tuple(sorted(each["dependentTasks"])) for each in prepare.values()}) == 1
        parts = [name for name in joined["inputs"]["artifacts"] if name.startswith("part_")]
        assert parts == ["part_1", "part_2", "part_3"]
        (verdict,) = [name for name in joined["dependentTasks"] if name.startswith("verdict")]
        assert tasks[verdict]["taskInfo"]["name"] == f"verdict shards {task}"
        assert len(tasks[verdict]["inputs"]["parameters"]) == 3
    backend = Backend()
    assert kinds(backend.run(spec, VERSIONS)) > {"prepare", "train"}
    assert kinds(backend.run(spec, VERSIONS)) == set(ALWAYS)


def test_there_are_as_many_shards_as_the_component_brings_together(tmp_path: Path) -> None:
    assert not list(violations(compiled(changed(f"cluster.shards={PARTS}"), tmp_path)))
    for wrong in (0, PARTS + 1):
        with pytest.raises(ConfigError, match=r"cluster\.shards"):
            changed(f"cluster.shards={wrong}")


def test_one_shard_is_one_task(tmp_path: Path) -> None:
    tasks = tasks_of(compiled(compose(["demo", "cluster"]), tmp_path))
    assert sum(name.startswith("prepare") for name in tasks) == len(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_components_come_to_what_one_makes(task: str, tiny: Config, tmp_path: Path) -> None:
    data = ingested(tiny, task, tmp_path / "ingested")

    def prepared(name: str, shard: int, shards: int, **parts: dsl.Dataset) -> Path:
        out = dsl.Dataset(uri=str(tmp_path / name))
        asked = given(tiny, "prepare", task)
        every = {f"part_{number}": None for number in range(1, PARTS + 1)}
        told = components.prepare.python_func(
            **asked, shard=shard, shards=shards, ingested=data, prepared=out, **{**every, **parts}
        )
        assert told == ""
        return Path(out.path)

    whole = prepared("whole", 0, 1)
    shards = {f"part_{number + 1}": dsl.Dataset(uri=str(prepared(f"shard-{number}", number, 2))) for number in range(2)}
    joined = prepared("joined", 0, 1, **shards)
    assert (joined / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()
    names = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (whole, joined)]
    assert names[0] == names[1]
