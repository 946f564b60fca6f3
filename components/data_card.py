"""Component: describe ingested MRI data and compare it with what a model was trained on."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def data_card(
    params: str,
    code: str,
    ingested: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    card: dsl.Output[dsl.Artifact],  # type: ignore[type-arg]
    metrics: dsl.Output[dsl.Metrics],  # type: ignore[type-arg]
) -> None:
    """Writes the page and the numbers; fails if the data drifted.

    Args:
        params: What this task reads of the parameters, as JSON.
        code: Checksum of the code that this task runs; empty for whatever the image holds.
        ingested: Folder that the ingest component wrote.
        card: Folder with `card.html` and `card.json`.
        metrics: Number of cases and drift, for the Kubeflow user interface.
    """
    from condswin import kubeflow

    kubeflow.data_card(params, code, ingested.path, card.path, metrics.log_metric)
