"""Component: check, split and copy raw files."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(params: str, task: str, source: str, ingested: dsl.Output[dsl.Dataset]) -> str:  # type: ignore[type-arg]
    """Makes a checked copy of a source, split by patient.

    Args:
        params: Parameters as JSON.
        task: `reconstruction` or `segmentation`.
        source: Folder, or `s3://` prefix, with fastMRI or LiTS files.
        ingested: Folder of files and manifest.

    Returns:
        Fingerprint of the data.
    """
    from condswin import kubeflow

    return kubeflow.ingest(params, task, source, ingested.path)
