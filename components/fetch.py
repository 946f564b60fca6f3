"""Component: bring the champion here."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fetch(
    params: str,
    task: str,
    model: dsl.Output[dsl.Model],  # type: ignore[type-arg]
    card: dsl.Output[dsl.Artifact],  # type: ignore[type-arg]
) -> str:
    """Fetches the task's champion from MLflow, in every run: which version that is may change.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        model: Folder with weights and description.
        card: Folder with `card.json` of the data that it was trained on; empty if it was registered without.

    Returns:
        Address of the version.
    """
    from condswin import kubeflow

    return kubeflow.fetch(params, task, model.path, card.path)
