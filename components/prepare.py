"""Component: undersample k-space, or cut CT volumes into slices."""

from kfp import dsl

from components.image import IMAGE

#: Parts that it brings together. Their number is fixed because inputs of the backend are named when a pipeline is
#: compiled.
PARTS = 8


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(
    params: str,
    task: str,
    code: str,
    shard: int,
    shards: int,
    ingested: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    prepared: dsl.Output[dsl.Dataset],  # type: ignore[type-arg]
    part_1: dsl.Input[dsl.Dataset] = None,  # type: ignore[type-arg, assignment]
    part_2: dsl.Input[dsl.Dataset] = None,  # type: ignore[type-arg, assignment]
    part_3: dsl.Input[dsl.Dataset] = None,  # type: ignore[type-arg, assignment]
    part_4: dsl.Input[dsl.Dataset] = None,  # type: ignore[type-arg, assignment]
    part_5: dsl.Input[dsl.Dataset] = None,  # type: ignore[type-arg, assignment]
    part_6: dsl.Input[dsl.Dataset] = None,  # type: ignore[type-arg, assignment]
    part_7: dsl.Input[dsl.Dataset] = None,  # type: ignore[type-arg, assignment]
    part_8: dsl.Input[dsl.Dataset] = None,  # type: ignore[type-arg, assignment]
) -> str:
    """Prepares every ingested case, or a shard of them; given the parts that shards made, it brings them together.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        code: Checksum of the code that this task runs; empty for whatever the image holds.
        shard: Number of the part to prepare, from 0.
        shards: How many parts there are; 1 for every case.
        ingested: Folder that the ingest component wrote.
        prepared: Folder of files and manifest; of a shard without a manifest.
        part_1: Folder that the component wrote for a shard.
        part_2: Folder that the component wrote for a shard.
        part_3: Folder that the component wrote for a shard.
        part_4: Folder that the component wrote for a shard.
        part_5: Folder that the component wrote for a shard.
        part_6: Folder that the component wrote for a shard.
        part_7: Folder that the component wrote for a shard.
        part_8: Folder that the component wrote for a shard.

    Returns:
        Why the pipeline cannot go on; empty if it can.
    """
    from condswin import kubeflow

    return kubeflow.prepare(
        params,
        task,
        code,
        shard,
        shards,
        ingested.path,
        [part_1, part_2, part_3, part_4, part_5, part_6, part_7, part_8],
        prepared.path,
    )
