"""Component: describe ingested data and compare it with what a model was trained on."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def data_card(
    params: str,
    task: str,
    code: str,
    ingested: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    card: dsl.Output[dsl.Artifact],  # type: ignore[type-arg]
    page: dsl.Output[dsl.HTML],  # type: ignore[type-arg]
    metrics: dsl.Output[dsl.Metrics],  # type: ignore[type-arg]
    reference: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
) -> str:
    """Writes the page and the numbers; stops the pipeline if the data drifted.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        code: Checksum of the code that this task runs; empty for whatever the image holds.
        ingested: Folder that the ingest component wrote.
        card: Folder with `card.html` and `card.json`.
        page: The page alone, for the Kubeflow user interface.
        metrics: Number of cases and drift, for the Kubeflow user interface.
        reference: Folder with `card.json` of other data to compare with; the parameters' if there is none.

    Returns:
        Why the pipeline cannot go on; empty if it can.
    """
    from condswin import kubeflow

    return kubeflow.data_card(params, task, code, ingested.path, reference, card.path, page.path, metrics.log_metric)
