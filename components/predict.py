"""Component: predict files as they came from the scanner."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def predict(
    params: str,
    task: str,
    code: str,
    version: str,
    model: dsl.Input[dsl.Model],  # type: ignore[type-arg]
    predictions: dsl.Output[dsl.Artifact],  # type: ignore[type-arg]
    page: dsl.Output[dsl.Markdown],  # type: ignore[type-arg]
    metrics: dsl.Output[dsl.Metrics],  # type: ignore[type-arg]
) -> str:
    """Predicts every file of the source that is of the model's kind; none, if one of them is unlike its training data.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        code: Checksum of the code that this task runs; empty for whatever the image holds.
        version: What the resolve component returned; other data is refused.
        model: Folder of the model.
        predictions: Folder of the predictions.
        page: What became of each file, for the Kubeflow user interface.
        metrics: Numbers of files by what became of them.

    Returns:
        Why the pipeline cannot go on; empty if it can.
    """
    from condswin import kubeflow

    return kubeflow.predict(params, task, code, version, model.path, predictions.path, page.path, metrics.log_metric)
