"""Component: train one variant."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    params: str,
    task: str,
    code: str,
    variant: str,
    checkpoints: str,
    prepared: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    model: dsl.Output[dsl.Model],  # type: ignore[type-arg]
) -> str:
    """Trains a variant; a retried task goes on from its last checkpoint if `checkpoints` is given.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        code: Checksum of the code that this task runs; empty for whatever the image holds.
        variant: A variant that the parameters name.
        checkpoints: Folder on a persistent volume; empty to lose checkpoints with the pod.
        prepared: Folder that the prepare component wrote.
        model: Folder with weights and description.

    Returns:
        Why the pipeline cannot go on; empty if it can.
    """
    from condswin import kubeflow

    return kubeflow.train(params, task, code, variant, checkpoints, prepared.path, model.path)
