"""Component: check, split and copy raw files."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    params: str,
    task: str,
    code: str,
    version: str,
    ingested: dsl.Output[dsl.Dataset],  # type: ignore[type-arg]
    md5: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> str:
    """Makes a checked copy of the source, or of demo data, split by patient, and keeps a version of it in DVC's remote.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        code: Checksum of the code that this task runs; empty for whatever the image holds.
        version: What the resolve component returned; other data is refused.
        ingested: Folder of files and manifest.
        md5: What DVC calls that version; empty where no remote is named.

    Returns:
        Why the pipeline cannot go on; empty if it can.
    """
    from condswin import kubeflow

    return kubeflow.ingest(params, task, code, version, ingested.path, md5)
