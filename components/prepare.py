"""Component: undersample k-space, or cut CT volumes into slices."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(
    params: str,
    task: str,
    code: str,
    ingested: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    prepared: dsl.Output[dsl.Dataset],  # type: ignore[type-arg]
) -> str:
    """Prepares every ingested case.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        code: Checksum of the code that this task runs; empty for whatever the image holds.
        ingested: Folder that the ingest component wrote.
        prepared: Folder of files and manifest.

    Returns:
        Why the pipeline cannot go on; empty if it can.
    """
    from condswin import kubeflow

    return kubeflow.prepare(params, task, code, ingested.path, prepared.path)
