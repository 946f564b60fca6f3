"""Component: score a trained variant."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    params: str,
    task: str,
    prepared: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    model: dsl.Input[dsl.Model],  # type: ignore[type-arg]
    evaluation: dsl.Output[dsl.Artifact],  # type: ignore[type-arg]
    metrics: dsl.Output[dsl.Metrics],  # type: ignore[type-arg]
) -> str:
    """Predicts and scores the validation and test cases.

    Args:
        params: Parameters as JSON.
        task: `reconstruction` or `segmentation`.
        prepared: Folder that the prepare component wrote.
        model: Folder that the train component wrote.
        evaluation: Folder with predictions, per-case tables and pictures.
        metrics: Test means, for the Kubeflow user interface.

    Returns:
        Scores and the model's address as JSON in base64, for the compare component.
    """
    from condswin import kubeflow

    return kubeflow.evaluate(params, task, prepared.path, model.path, model.uri, evaluation.path, metrics.log_metric)
