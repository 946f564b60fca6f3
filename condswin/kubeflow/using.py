"""Tasks that use networks, and that tell how a run ended."""

import os
import tempfile
from pathlib import Path

from condswin.errors import StoppedError
from condswin.kubeflow.given import Log, raw, read, require, require_version
from condswin.outcomes import settled


@settled
def predict(
    params: str,
    task: str,
    code: str,
    version: str,
    model: str,
    predictions: str,
    page: str,
    log_metric: Log,
) -> None:
    """Predicts every file of the source."""
    from condswin.reporting.markdown import predictions_page
    from condswin.sources.local import local_source
    from condswin.steps.predict import Result
    from condswin.steps.predict import predict as step

    config = read(params, task)
    require(code, "predict", task)
    require_version(config, task, version)
    results: list[Result] = []
    unchecked = config.task(task).ingest.unchecked_objects == "accept"
    with (
        tempfile.TemporaryDirectory() as scratch,
        raw(config, task) as source,
        local_source(source, Path(scratch, "raw"), accept_unchecked=unchecked) as (folder, _),
    ):
        try:
            step(
                config,
                [folder],
                model=model,
                out=Path(predictions),
                tell=lambda result, _: results.append(result),
                note=print,
            )
        finally:
            Path(page).write_text(predictions_page(task, results, folder))
            for status in ("predicted", "refused", "failed"):
                log_metric(status, sum(result.status == status for result in results))


def verdict(*outcomes: str) -> None:
    """Fails if a step told that its pipeline cannot go on.

    Raises:
        StoppedError: It did; a line for each.
    """
    if told := [outcome for outcome in outcomes if outcome]:
        raise StoppedError("\n".join(told))


def notify(pipeline: str, state: str, task: str, run: str, ui: str) -> None:
    """Posts how a run ended to the webhook in the environment; a webhook that fails fails nothing."""
    from condswin.notify import WEBHOOK, message, post

    trouble = post(os.environ.get(WEBHOOK, ""), message(pipeline, state, task, run, ui))
    print(f"nobody was told: {trouble}" if trouble else "told")
