"""Component: have one variant trained on several machines."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_nodes(
    params: str,
    task: str,
    code: str,
    variant: str,
    image: str,
    job: str,
    checkpoints: str,
    prepared: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    model: dsl.Output[dsl.Model],  # type: ignore[type-arg]
) -> str:
    """Has a TrainJob of Kubeflow Trainer train a variant, follows it and brings its result; a retried task finds it.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        code: Checksum of the code that is run; empty for whatever the images hold.
        variant: A variant that the parameters name.
        image: Image of the machines.
        job: The TrainJob, as JSON, but for its name, its image and what it is given.
        checkpoints: Folder that this task and all machines mount.
        prepared: Folder that the prepare component wrote.
        model: Folder with weights and description.

    Returns:
        Why the pipeline cannot go on; empty if it can.
    """
    from condswin import kubeflow

    return kubeflow.train_nodes(params, task, code, variant, image, job, checkpoints, prepared.path, model.path)
