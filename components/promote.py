"""Component: make the challenger champion if it passes the gate."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(
    params: str,
    task: str,
    registered: dsl.Input[dsl.Artifact],  # type: ignore[type-arg]
    prepared: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    baseline: dsl.Input[dsl.Artifact],  # type: ignore[type-arg]
    decision: dsl.Output[dsl.Artifact],  # type: ignore[type-arg]
    page: dsl.Output[dsl.Markdown],  # type: ignore[type-arg]
) -> bool:
    """Compares challenger, champion and reference method on the same test cases; moves the alias if the gate allows.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        registered: File that the register component wrote.
        prepared: Folder that the prepare component wrote.
        baseline: Folder that the baseline component wrote.
        decision: JSON file with the reasons.
        page: The same in words, for the Kubeflow user interface.

    Returns:
        Whether the challenger is champion now.
    """
    from condswin import kubeflow

    return kubeflow.promote(params, task, registered.path, prepared.path, baseline.path, decision.path, page.path)
