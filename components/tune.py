"""Component: one trial of a search for parameters."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tune(
    params: str,
    task: str,
    code: str,
    variant: str,
    search: str,
    trials: int,
    seeds: int,
    checkpoints: str,
    lane: int,
    prepared: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    results: dsl.Output[dsl.Artifact],  # type: ignore[type-arg]
) -> str:
    """Trains a variant once with other parameters, and tells the study, in PostgreSQL, how well it did.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        code: Checksum of the code that this task runs; empty for whatever the image holds.
        variant: A variant that the parameters name.
        search: What to try, as JSON.
        trials: How many there are in all; where they are done already, nothing is.
        seeds: Trainings per trial, whose mean counts.
        checkpoints: Folder on a persistent volume; empty to begin a trial anew with its pod.
        lane: Number of the tasks that run one after another.
        prepared: Folder that the prepare component wrote.
        results: Folder with all trials so far, the best one first.

    Returns:
        Why the pipeline cannot go on; empty if it can.
    """
    from condswin import kubeflow

    return kubeflow.tune(
        params, task, code, variant, search, trials, seeds, checkpoints, lane, prepared.path, results.path
    )
