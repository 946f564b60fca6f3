"""Component: score a trained variant."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    params: str,
    task: str,
    code: str,
    prepared: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    model: dsl.Input[dsl.Model],  # type: ignore[type-arg]
    evaluation: dsl.Output[dsl.Artifact],  # type: ignore[type-arg]
    metrics: dsl.Output[dsl.Metrics],  # type: ignore[type-arg]
    detection: dsl.Output[dsl.ClassificationMetrics],  # type: ignore[type-arg]
) -> str:
    """Predicts and scores the validation and test cases.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        code: Checksum of the code that this task runs; empty for whatever the image holds.
        prepared: Folder that the prepare component wrote.
        model: Folder that the train component wrote.
        evaluation: Folder with predictions, per-case tables and pictures.
        metrics: Test means, for the Kubeflow user interface.
        detection: Lesions found, missed and invented in test cases, and the curve of telling by the predicted volume
            who has one; of segmentation alone, for the Kubeflow user interface.

    Returns:
        Why the pipeline cannot go on; empty if it can.
    """
    from condswin import kubeflow

    return kubeflow.evaluate(
        params, task, code, prepared.path, model.path, evaluation.path, metrics.log_metric, detection
    )
