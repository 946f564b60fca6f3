"""Component: register the best variant."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    params: str,
    task: str,
    image: str,
    pipeline_run: str,
    source_md5: str,
    comparison: dsl.Input[dsl.Artifact],  # type: ignore[type-arg]
    model: dsl.Input[dsl.Model],  # type: ignore[type-arg]
    registered: dsl.Output[dsl.Artifact],  # type: ignore[type-arg]
    card: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
) -> str:
    """Registers a model in MLflow as challenger; running it again changes nothing.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        image: Name of the image that the pipeline runs in.
        pipeline_run: Identifier of the run.
        source_md5: What the ingest component told of the data's version in DVC's remote.
        comparison: File that the compare component wrote.
        model: Folder of the best model.
        registered: JSON file that names the version.
        card: Folder that the data_card component wrote of the data, to be kept with the version.

    Returns:
        The version.
    """
    from condswin import kubeflow

    return kubeflow.register(
        params, task, image, pipeline_run, source_md5, comparison.path, model.path, card, registered.path
    )
