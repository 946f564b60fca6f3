"""Component: start retraining where data drifted."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retrain(
    params: str,
    task: str,
    version: str,
    card: dsl.Input[dsl.Artifact],  # type: ignore[type-arg]
) -> str:
    """Starts the schedule that the parameters name, once for a version of the data that drifted.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        version: What the resolve component returned.
        card: Folder that the data_card component wrote.

    Returns:
        Name of the run that was started, or had been before; empty if none was to be.
    """
    from pipelines import starting

    return starting.retrain(params, task, version, card.path)
