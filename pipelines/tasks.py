"""What pipelines are made of: a data set's tasks, each in its pool and with its part of the parameters."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

from kfp import dsl, kubernetes
from kfp.dsl import base_component, pipeline_channel, pipeline_task

import components
from components.prepare import PARTS
from components.verdict import OUTCOMES
from condswin.config.names import TaskName
from condswin.config.parts import part
from condswin.config.pools import Pools, load_pools
from condswin.config.root import Config
from condswin.kubeflow import code_of
from condswin.notify import WEBHOOK
from pipelines.nodes import train_job
from pipelines.placing import CHECKPOINTS, keep_checkpoints, place

#: An output of a task.
Channel = pipeline_channel.PipelineChannel
# What a task with an effect elsewhere, or that looks elsewhere, cannot take from an earlier run.
_UNCACHED = ("resolve", "register", "promote", "notify", "fetch", "tune", "retrain")


class Ingested(NamedTuple):
    """Data of a source.

    Attributes:
        files: Where they are.
        whole: The verdict on them, which what uses them waits for.
        version: Of the source.
        md5: Of their version in DVC's remote.
    """

    files: Channel
    whole: pipeline_task.PipelineTask
    version: Channel
    md5: Channel


class Tasks:
    """Adds the tasks of one data set to the pipeline that is being made.

    Args:
        config: Parameters; each task is given what it reads of them.
        name: Which data set and networks: `reconstruction` or `segmentation`.
        pools: Which pool each task runs in.
        with_code: Name the code that each task runs: other code is refused, and is no hit of the cache.
    """

    def __init__(self, config: Config, name: TaskName, pools: Pools, *, with_code: bool) -> None:
        self.config, self.name, self.pools, self._with_code = config, name, pools, with_code

    def add(self, step: str, variant: str = "", *, cached: bool = True, **inputs: Any) -> pipeline_task.PipelineTask:
        """Adds a component's task.

        Args:
            step: The component.
            variant: For one that is for a variant.
            cached: Take the outputs of an earlier task that was asked the same, if the component may.
            **inputs: What it is given beside its part of the parameters, the data set's name and its code.
        """
        component = getattr(components, step)
        known = component.component_spec.inputs
        given = {"params": json.dumps(part(self.config, step, self.name, variant), sort_keys=True), "task": self.name}
        if "code" in known:
            given["code"] = code_of(step, self.name) if self._with_code else ""
        if "variant" in known:
            given["variant"] = variant
        task = component(**given, **inputs)
        named = " ".join(filter(None, [step.replace("_", " "), self.name, variant]))
        place(task, step, self.pools, self.config, cached=cached and step not in _UNCACHED).set_display_name(named)
        if step in ("train", "train_nodes", "tune"):
            pool = self.pools.of("train" if step == "train_nodes" else step)
            keep_checkpoints(task, pool, self.name, variant)
        return task

    def require(self, *tasks: pipeline_task.PipelineTask, step: str, variant: str = "") -> pipeline_task.PipelineTask:
        """Adds the verdict on tasks: what is to come after it does not start if one of them stops the pipeline.

        A condition would do without the pod. But of tasks below a condition the backend does not tell an exit handler
        how they ended (kubeflow/pipelines#11979), and the local runner evaluates it as Python (GHSA-rhjm-6347-5x33).
        """
        outcomes = {f"outcome_{number}": task.outputs["Output"] for number, task in enumerate(tasks, start=1)}
        assert len(outcomes) <= OUTCOMES
        verdict = components.verdict(**outcomes)
        named = " ".join(filter(None, [step, self.name, variant]))
        return place(verdict, "verdict", self.pools, self.config, cached=True).set_display_name(f"verdict {named}")

    def ingest(self) -> Ingested:
        """Adds what brings the source's files here."""
        # The only task of an unchanged run that has something to do before the registry: no cache knows what a source
        # outside holds. What follows has no input that differs between runs, or the cache would never be hit.
        found = self.add("resolve")
        ingested = self.add("ingest", version=found.output)
        whole = self.require(ingested, step="ingest")
        return Ingested(ingested.outputs["ingested"], whole, found.output, ingested.outputs["md5"])

    def card(
        self, ingested: Channel, whole: pipeline_task.PipelineTask, **reference: Channel
    ) -> tuple[Channel, pipeline_task.PipelineTask]:
        """Adds the data card; returns it, and the verdict on its drift.

        Args:
            ingested: What is described.
            whole: The verdict on it.
            **reference: `reference`: card to compare with; the parameters' without it.
        """
        # Of a file that the parameters name, the cache knows the name alone.
        cached = self.config.values()[self.name]["drift"]["reference"] is None
        card = self.add("data_card", cached=cached, ingested=ingested, **reference).after(whole)
        return card.outputs["card"], self.require(card, step="data card")

    def prepare(
        self, ingested: Channel, *after: pipeline_task.PipelineTask
    ) -> tuple[Channel, pipeline_task.PipelineTask]:
        """Adds what prepares files; returns them, and the verdict that what uses them waits for.

        Shards are unrolled here, as an exit handler breaks loops in the backend (kubeflow/pipelines#12390).
        """
        shards = self.config.cluster.shards
        assert shards <= PARTS
        parts: dict[str, Channel] = {}
        waited = list(after)
        if shards > 1:
            each = [
                self.add("prepare", ingested=ingested, shard=shard, shards=shards).after(*after)
                for shard in range(shards)
            ]
            for number, part in enumerate(each, start=1):
                part.set_display_name(f"prepare {self.name} {number} of {shards}")
                parts[f"part_{number}"] = part.outputs["prepared"]
            waited = [self.require(*each, step="shards")]
        prepared = self.add("prepare", ingested=ingested, shard=0, shards=1, **parts).after(*waited)
        return prepared.outputs["prepared"], self.require(prepared, step="prepare")

    def train(self, variant: str, prepared: Channel) -> pipeline_task.PipelineTask:
        """Adds what trains a variant: in its own pod, or, where its pool has several nodes, by a TrainJob."""
        pool = self.pools.of("train")
        given = {"prepared": prepared, "checkpoints": CHECKPOINTS if pool.checkpoints else ""}
        if pool.nodes == 1:
            return self.add("train", variant, **given)
        job = train_job(self.config, self.pools, self.name, variant)
        task = self.add("train_nodes", variant, image=pool.image, job=json.dumps(job, sort_keys=True), **given)
        return task.set_display_name(f"train {self.name} {variant}")


def pipeline(
    name: str,
    description: str,
    config: Config,
    tasks: Sequence[TaskName],
    body: Callable[[Tasks], None],
    *,
    with_code: bool,
    retries: bool,
) -> base_component.BaseComponent:
    """A pipeline that does the same for some data sets, and tells people how it ended.

    Args:
        name: Its name.
        description: Its purpose.
        config: Parameters.
        tasks: Which of the parameters' tasks.
        body: Adds the tasks of one.
        with_code: See `Tasks`.
        retries: Try again what failed.

    Raises:
        ConfigError: The pools cannot be read, or the parameters ask for what a pipeline cannot do.
    """
    pools = load_pools(config.cluster.pools)
    pools = pools if retries else pools.once()
    notify = config.cluster.notify

    def made() -> None:
        def bodies() -> None:
            for task in tasks:
                body(Tasks(config, task, pools, with_code=with_code))

        if not notify.secret:
            bodies()
            return
        told = components.notify(pipeline=name, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, ui=notify.ui)
        place(told, "notify", pools, config, cached=False)
        kubernetes.use_secret_as_env(told, secret_name=notify.secret, secret_key_to_env={notify.key: WEBHOOK})
        with dsl.ExitHandler(told, name="run"):
            bodies()

    with _callers_by_name():
        return dsl.pipeline(made, name=name, description=description)


@contextmanager
def _callers_by_name() -> Iterator[None]:
    """Spares kfp the stack's source, line by line for each setting of each task, for the name of a caller in an error.

    That was nine tenths of the time that compiling takes.
    """

    def stack() -> list[tuple[Any, ...]]:
        frame = sys._getframe(1)
        assert frame.f_back
        return [(None, "", 0, each.f_code.co_name) for each in (frame, frame.f_back)]

    known, pipeline_task.inspect = pipeline_task.inspect, SimpleNamespace(stack=stack)
    try:
        yield
    finally:
        pipeline_task.inspect = known
