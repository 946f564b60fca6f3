"""Pools are data: what fits together is taken, the rest refused in a line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from condswin.config.pools import STEPS, Checkpoints, Pools, load_pools, quantity
from condswin.errors import ConfigError

ROOT = Path(__file__).parents[2]
POOLS = ROOT / "infra" / "pools.yaml"


def changed(path: Path, *keys: str, to: Any) -> str:
    values = yaml.safe_load(POOLS.read_text())
    place = values
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_the_repository_s_pools_keep_small_steps_small_and_cpu_steps_off_the_cuda_image() -> None:
    pools = load_pools(str(POOLS))
    assert {step for step in STEPS if pools.of(step).accelerator} == {"train", "evaluate", "promote", "predict"}
    assert quantity(pools.of("compare").cpu.limit) <= 1
    assert {pools.of(step).image for step in ("ingest", "compare", "notify")} == {"condswin:cpu"}
    assert pools.once().of("train").retry.count == 0
    assert pools.of("train").retry.count > 0


def test_no_file_is_one_modest_pool() -> None:
    assert {load_pools("").name_of(step) for step in STEPS} == {"default"}
    assert not Pools().of("train").accelerator


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("pools", "cpu", "cpu", "limit"), 2, r"pools\.cpu\.cpu\.limit: Input should be a valid string \(given: 2\)"),
        (("pools", "cpu", "memory", "limit"), "16GB", r"pools\.cpu\.memory\.limit: .*\(given: \"16GB\"\)"),
        (("pools", "cpu", "memory", "request"), "1Ti", r"memory: the request 1Ti is above the limit 16Gi"),
        (("pools", "gpu", "shm"), "32Gi", r"shm: 32Gi counts as memory, of which the limit is 32Gi"),
        (("pools", "cpu", "gpus"), 1, r"pools\.cpu\.gpus: no such key; there are: image, accelerator"),
        (("pools", "cpu", "image"), "condswin:gpu", r"cpu: has no accelerator and the image of those that have"),
        (("steps", "trian"), "gpu", r"no step 'trian'; did you mean 'train'\?"),
        (("steps", "train"), "gpus", r"train: no pool 'gpus'; did you mean 'gpu'\?"),
        (("pools", "gpu", "checkpoints"), None, r"train: is to run on spot nodes and keeps no checkpoints there"),
        (
            ("pools", "gpu", "checkpoints", "access"),
            "ReadWriteOnce",
            r"ReadWriteOnce is for one node, and variants train on several: give a claim for each",
        ),
        (("pools", "gpu", "affinity"), [{"key": "a", "weight": 0}], r"affinity\.0\.weight: .*\(given: 0\)"),
        (("pools", "cpu", "timeout"), 0, r"pools\.cpu\.timeout: Input should be greater than 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(keys: tuple[str, ...], value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        load_pools(changed(tmp_path / "pools.yaml", *keys, to=value))
    assert str(refused.value).startswith(f"{tmp_path / 'pools.yaml'}: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.pools: nowhere\.yaml: no such file"):
        load_pools("nowhere.yaml")


def test_claims_of_trainings_are_names_of_kubernetes() -> None:
    each = Checkpoints(claim="condswin-{task}-{variant}", access="ReadWriteOnce")
    assert each.name("segmentation", "conditional-light") == "condswin-segmentation-conditional-light"
    with pytest.raises(ConfigError, match=r"'condswin-segmentation-My_net' is no name of a PersistentVolumeClaim"):
        each.name("segmentation", "My_net")


@pytest.mark.parametrize(("text", "value"), [("500m", 0.5), ("2", 2), ("1Gi", 2**30), ("1G", 1e9), ("3Ki", 3072)])
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == value
