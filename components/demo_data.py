"""Component: generate demo data."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def demo_data(params: str, task: str, raw: dsl.Output[dsl.Dataset]) -> str:  # type: ignore[type-arg]
    """Generates demo volumes in the real file format, or an empty folder if the parameters name another source.

    Args:
        params: Parameters as JSON.
        task: `reconstruction` or `segmentation`.
        raw: Folder of raw files.

    Returns:
        The source to ingest: the generated folder, or the one that the parameters name.
    """
    from condswin import kubeflow

    return kubeflow.demo_data(params, task, raw.path)
