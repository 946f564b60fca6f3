"""Component: stop a pipeline that cannot go on."""

from kfp import dsl

from components.image import IMAGE

#: Outcomes that it takes: those of as many variants as are compared, and the reference method's.
OUTCOMES = 9


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def verdict(
    outcome_1: str,
    outcome_2: str = "",
    outcome_3: str = "",
    outcome_4: str = "",
    outcome_5: str = "",
    outcome_6: str = "",
    outcome_7: str = "",
    outcome_8: str = "",
    outcome_9: str = "",
) -> None:
    """Fails, once and for all, if a task before it told that the pipeline cannot go on.

    Args:
        outcome_1: What a task returned: why the pipeline cannot go on; empty if it can.
        outcome_2: What a task returned.
        outcome_3: What a task returned.
        outcome_4: What a task returned.
        outcome_5: What a task returned.
        outcome_6: What a task returned.
        outcome_7: What a task returned.
        outcome_8: What a task returned.
        outcome_9: What a task returned.
    """
    from condswin import kubeflow

    kubeflow.verdict(outcome_1, outcome_2, outcome_3, outcome_4, outcome_5, outcome_6, outcome_7, outcome_8, outcome_9)
