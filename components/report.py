"""Component: write the report."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report(
    params: str,
    task: str,
    code: str,
    prepared: dsl.Input[dsl.Dataset],  # type: ignore[type-arg]
    page: dsl.Output[dsl.HTML],  # type: ignore[type-arg]
    evaluation_1: dsl.Input[dsl.Artifact],  # type: ignore[type-arg]
    model_1: dsl.Input[dsl.Model],  # type: ignore[type-arg]
    image: str = "",
    comparison: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
    baseline: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
    evaluation_2: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
    model_2: dsl.Input[dsl.Model] = None,  # type: ignore[type-arg, assignment]
    evaluation_3: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
    model_3: dsl.Input[dsl.Model] = None,  # type: ignore[type-arg, assignment]
    evaluation_4: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
    model_4: dsl.Input[dsl.Model] = None,  # type: ignore[type-arg, assignment]
    evaluation_5: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
    model_5: dsl.Input[dsl.Model] = None,  # type: ignore[type-arg, assignment]
    evaluation_6: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
    model_6: dsl.Input[dsl.Model] = None,  # type: ignore[type-arg, assignment]
    evaluation_7: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
    model_7: dsl.Input[dsl.Model] = None,  # type: ignore[type-arg, assignment]
    evaluation_8: dsl.Input[dsl.Artifact] = None,  # type: ignore[type-arg, assignment]
    model_8: dsl.Input[dsl.Model] = None,  # type: ignore[type-arg, assignment]
) -> None:
    """Writes a page with the variants' scores, curves and pictures; without a comparison, on one evaluation alone.

    Args:
        params: What this task reads of the parameters, as JSON.
        task: `reconstruction` or `segmentation`.
        code: Checksum of the code that this task runs; empty for whatever the image holds.
        prepared: Folder that the prepare component wrote.
        page: The report, one file.
        evaluation_1: Folder that the evaluate component wrote for a variant.
        model_1: Folder that the train component wrote for it.
        image: Container image that networks were trained in.
        comparison: File that the compare component wrote.
        baseline: Folder that the baseline component wrote.
        evaluation_2: Folder that the evaluate component wrote for a variant.
        model_2: Folder that the train component wrote for it.
        evaluation_3: Folder that the evaluate component wrote for a variant.
        model_3: Folder that the train component wrote for it.
        evaluation_4: Folder that the evaluate component wrote for a variant.
        model_4: Folder that the train component wrote for it.
        evaluation_5: Folder that the evaluate component wrote for a variant.
        model_5: Folder that the train component wrote for it.
        evaluation_6: Folder that the evaluate component wrote for a variant.
        model_6: Folder that the train component wrote for it.
        evaluation_7: Folder that the evaluate component wrote for a variant.
        model_7: Folder that the train component wrote for it.
        evaluation_8: Folder that the evaluate component wrote for a variant.
        model_8: Folder that the train component wrote for it.
    """
    from condswin import kubeflow

    kubeflow.report(
        params,
        task,
        code,
        prepared.path,
        image,
        comparison,
        baseline,
        [
            evaluation_1,
            evaluation_2,
            evaluation_3,
            evaluation_4,
            evaluation_5,
            evaluation_6,
            evaluation_7,
            evaluation_8,
        ],
        [model_1, model_2, model_3, model_4, model_5, model_6, model_7, model_8],
        page.path,
    )
