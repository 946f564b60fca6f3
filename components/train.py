"""Component: train one variant."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    params: str,
    task: str,
    variant: str,
    checkpoints: str,
    prepared: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    model: dsl.Output[dsl.Model],  # type: ignore[type-arg]
) -> None:
    """Trains a variant; a retried task goes on from its last checkpoint if `checkpoints` is given.

    Args:
        params: Parameters as JSON.
        task: `reconstruction` or `segmentation`.
        variant: A variant that the parameters name.
        checkpoints: Folder on a persistent volume; empty to lose checkpoints with the pod.
        prepared: Folder that the prepare component wrote.
        model: Folder with weights and description.
    """
    from condswin import kubeflow

    kubeflow.train(params, task, variant, checkpoints, prepared.path, model.path)
