"""Component: choose the best variant."""

from typing import NamedTuple

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare(
    params: str,
    task: str,
    evaluations: list,  # type: ignore[type-arg]
    comparison: dsl.Output[dsl.Artifact],  # type: ignore[type-arg]
) -> NamedTuple("Best", [("variant", str), ("model_uri", str)]):  # type: ignore[valid-type]
    """Sets the variants beside each other and chooses the best on validation cases.

    Args:
        params: Parameters as JSON.
        task: `reconstruction` or `segmentation`.
        evaluations: What the evaluate components returned.
        comparison: JSON file with all variants' scores.

    Returns:
        The best variant and the address of its model.
    """
    from condswin import kubeflow

    return kubeflow.compare(params, task, evaluations, comparison.path)
