"""Pools: which nodes of a cluster a step of the pipelines runs on, and what it asks of them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from condswin.config.names import TaskName
from condswin.config.reading import read_yaml, validated
from condswin.config.section import Natural, Positive, Section
from condswin.errors import ConfigError
from condswin.suggest import unknown

#: Components of the pipelines, which is what `steps` may name.
STEPS = (
    *("resolve", "ingest", "data_card", "prepare", "train", "evaluate", "baseline", "compare", "register", "promote"),
    *("report", "fetch", "predict", "tune", "retrain", "verdict", "notify", "train_nodes"),
)
#: What a node that goes away takes hours of.
_LONG = ("train", "tune")

Cpu = Annotated[str, Field(pattern=r"^([0-9]*[.])?[0-9]+m?$")]
Bytes = Annotated[str, Field(pattern=r"^[0-9]+([EPTGM]i?|Ki?)?$")]
_UNITS = {unit: 1000**power for power, unit in enumerate(("", "K", "M", "G", "T", "P", "E"))}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate(("", "K", "M", "G", "T", "P", "E")) if unit}


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number: cores or bytes."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]
    return float(number) / 1000 if unit == "m" else float(number) * _UNITS[unit]


class CpuAmount(Section):
    """CPUs of a pod.

    Attributes:
        request: What the scheduler keeps free for it.
        limit: Where it is slowed down.
    """

    request: Cpu = "500m"
    limit: Cpu = "2"


class MemoryAmount(Section):
    """Memory of a pod.

    Attributes:
        request: What the scheduler keeps free for it.
        limit: Where it is killed.
    """

    request: Bytes = "2Gi"
    limit: Bytes = "4Gi"


class Accelerator(Section):
    """Accelerators of a pod.

    Attributes:
        type: Resource that nodes offer.
        count: How many.
    """

    type: str = "nvidia.com/gpu"
    count: Positive = 1


class Toleration(Section):
    """A taint of nodes that does not keep the pod away.

    Attributes:
        key: Of the taint; empty with `Exists` for all.
        operator: Whether its value counts.
        value: Its value.
        effect: What it does to others; empty for all.
    """

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute", ""] = "NoSchedule"


class Affinity(Section):
    """Labels that nodes must or should have.

    Attributes:
        key: Label.
        operator: How it is compared.
        values: What with.
        weight: How much it should, 1 to 100; null where it must.
    """

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    values: list[str] = []  # pydantic copies defaults
    weight: Annotated[int, Field(ge=1, le=100)] | None = None


class Retry(Section):
    """What happens after a try that failed.

    Attributes:
        count: How many more tries.
        backoff: Seconds before the first of them.
        factor: How much longer before each further one.
    """

    count: Natural = 2
    backoff: Positive = 30
    factor: Annotated[float, Field(ge=1)] = 2.0


class Checkpoints(Section):
    """Volume for checkpoints, so that a training which was killed goes on.

    Attributes:
        claim: PersistentVolumeClaim; `{task}` and `{variant}` stand for a training's.
        access: What the claim allows: many pods at once, or those of one node.
    """

    claim: str
    access: Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"] = "ReadWriteMany"

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if self.access != "ReadWriteMany" and not {"{task}", "{variant}"} <= set(re.findall(r"{\w+}", self.claim)):
            raise ValueError(
                f"{self.access} is for one node, and variants train on several: give a claim for each, as "
                "condswin-{task}-{variant}, or ReadWriteMany"
            )
        return self

    def name(self, task: TaskName, variant: str) -> str:
        """The claim of one training.

        Raises:
            ConfigError: It is no name of a claim.
        """
        name = self.claim.replace("{task}", task).replace("{variant}", variant)
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
            raise ConfigError(
                f"checkpoints.claim: {name!r} is no name of a PersistentVolumeClaim, which has a to z, 0 to 9, - "
                "and .; name the claim or the variant otherwise"
            )
        return name


class Pool(Section):
    """Nodes, and what a pod asks of them.

    Attributes:
        image: Image of the pods. A digest, or a tag that `infra/images.yaml` has the digest of: Kubeflow's cache does
            not notice when a tag moves.
        accelerator: Accelerators; null for none.
        cpu: CPUs.
        memory: Memory, `shm` included.
        shm: Size of `/dev/shm`, through which Lightning's loaders pass batches; a pod has 64 MiB by default. Empty to
            leave it so.
        nodes: How many such pods train a variant together, as a TrainJob of Kubeflow Trainer: a step's slices are those
            of one pod times this. For `train` alone; other steps have one.
        scratch: Room on the node's disk for `/tmp`; a pod that takes more is evicted. Empty for no bound.
        selector: Labels that nodes must have.
        affinity: Labels that nodes must or should have.
        tolerations: Taints that do not keep the pods away.
        spot: The nodes may be taken away at any time.
        timeout: Seconds after which a try is ended.
        retry: What happens after a try that failed.
        checkpoints: Where trainings keep checkpoints; null to lose them with the pod.
    """

    image: Annotated[str, Field(min_length=1)] = "condswin:latest"
    accelerator: Accelerator | None = None
    cpu: CpuAmount = CpuAmount()
    memory: MemoryAmount = MemoryAmount()
    shm: Bytes | Literal[""] = ""
    nodes: Positive = 1
    scratch: Bytes | Literal[""] = ""
    selector: dict[str, str] = {}  # pydantic copies defaults
    affinity: list[Affinity] = []
    tolerations: list[Toleration] = []
    spot: bool = False
    timeout: Positive = 7 * 24 * 3600
    retry: Retry = Retry()
    checkpoints: Checkpoints | None = None

    @model_validator(mode="after")
    def _amounts(self) -> Self:
        for name, amount in (("cpu", self.cpu), ("memory", self.memory)):
            if quantity(amount.request) > quantity(amount.limit):
                raise ValueError(f"{name}: the request {amount.request} is above the limit {amount.limit}")
        if self.shm and quantity(self.shm) >= quantity(self.memory.limit):
            raise ValueError(f"shm: {self.shm} counts as memory, of which the limit is {self.memory.limit}")
        return self


class Pools(Section):
    """What `infra/pools.yaml` holds.

    Attributes:
        pools: Pools by name.
        default: The pool of steps that `steps` does not name.
        steps: Pools of other steps, by component.
    """

    pools: dict[str, Pool] = {"default": Pool()}
    default: str = "default"
    steps: dict[str, str] = {}

    @model_validator(mode="after")
    def _known(self) -> Self:
        for step, name in {"default": self.default, **self.steps}.items():
            if step not in (*STEPS, "default"):
                raise ValueError(unknown("step", step, STEPS))
            if name not in self.pools:
                raise ValueError(f"{step}: {unknown('pool', name, tuple(self.pools))}")
        for step in _LONG:
            pool = self.of(step)
            if pool.spot and not pool.checkpoints:
                raise ValueError(f"{step}: is to run on spot nodes and keeps no checkpoints there; give the pool some")
        self._require_shared()
        with_gpu = {pool.image for pool in self.pools.values() if pool.accelerator}
        for name, pool in self.pools.items():
            if not pool.accelerator and pool.image in with_gpu:
                raise ValueError(
                    f"{name}: has no accelerator and the image of those that have, {pool.image}; name another"
                )
        return self

    def _require_shared(self) -> None:
        training, waiting = self.of("train"), self.of("train_nodes")
        if training.nodes == 1:
            return
        if not training.checkpoints or training.checkpoints.access != "ReadWriteMany":
            raise ValueError(
                f"train: its {training.nodes} nodes share data, checkpoints and result; give the pool checkpoints with "
                "ReadWriteMany, or nodes: 1"
            )
        if waiting.timeout < training.timeout:
            raise ValueError(
                f"train_nodes: waits for trainings of at most {training.timeout} s and is ended after "
                f"{waiting.timeout} s; give it a pool with a longer timeout"
            )

    def name_of(self, step: str) -> str:
        """Name of a step's pool."""
        return self.steps.get(step, self.default)

    def of(self, step: str) -> Pool:
        """A step's pool."""
        return self.pools[self.name_of(step)]

    def once(self) -> "Pools":
        """The same without retries."""
        never = Retry(count=0)
        pools: Mapping[str, Pool] = {
            name: pool.model_copy(update={"retry": never}) for name, pool in self.pools.items()
        }
        return self.model_copy(update={"pools": pools})


def load_pools(path: str) -> Pools:
    """Reads and validates a file of pools.

    Args:
        path: The file; empty for one pool of modest pods without accelerators.

    Raises:
        ConfigError: The file is missing, is not YAML or has a bad key.
    """
    if not path:
        return Pools()
    if not Path(path).is_file():
        raise ConfigError(f"cluster.pools: {path}: no such file; infra/pools.yaml of the repository is an example")
    return validated(Pools, read_yaml(Path(path)), origin=path)
