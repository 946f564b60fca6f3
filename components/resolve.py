"""Component: say which data is at the source."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve(params: str, task: str) -> str:
    """Lists the source without reading it, in every run; what follows is cached by the version that it returns.

    Args:
        params: What ingest reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.

    Returns:
        Version of the data.
    """
    from condswin import kubeflow

    return kubeflow.resolve(params, task)
