"""Component: say how a run ended."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify(pipeline: str, run: str, ui: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Posts to the webhook in the environment how a run ended; whatever becomes of that, the run is what it is.

    Args:
        pipeline: Name of the pipeline.
        run: Identifier of the run.
        ui: Address of Kubeflow's user interface; empty for no link.
        status: What the backend says of the tasks.
    """
    from condswin import kubeflow

    kubeflow.notify(pipeline, status.state, status.pipeline_task_name, run, ui)
