"""Step: set the variants of a task beside each other and name the best by validation."""

from pathlib import Path
from typing import Any

from condswin.config import Config, TaskName
from condswin.errors import BadDataError
from condswin.files import read_json, write_json
from condswin.steps.evaluate import METRICS
from condswin.tasks import get_task


def compare(config: Config, task_name: TaskName, *, evaluations: dict[str, Path], out: Path) -> dict[str, Any]:
    """Compares evaluated variants.

    The best is chosen on validation cases, so that the test figures stay an honest estimate; where there are none,
    on the test cases, and `chosen_on` says so.

    Args:
        config: Parameters.
        task_name: Which task.
        evaluations: Output folder of the evaluate step by variant.
        out: JSON file to write.

    Returns:
        What the file holds: `task`, `best`, `metric`, `chosen_on`, `data_sha256`, `params_sha256` of the best, and
        under `variants` the splits' summaries.

    Raises:
        BadDataError: The variants were not evaluated on the same data, or none has the metric.
    """
    task = get_task(task_name, config)
    metric, higher_is_better = next(iter(task.metrics.items()))
    results = {variant: read_json(folder / METRICS) for variant, folder in sorted(evaluations.items())}
    if len({result["data_sha256"] for result in results.values()}) != 1:
        raise BadDataError(
            f"{', '.join(str(folder) for folder in evaluations.values())}: evaluated on different data; evaluate again"
        )
    chosen_on = "val" if all("val" in result for result in results.values()) else "test"
    scores = {variant: result[chosen_on][metric]["mean"] for variant, result in results.items()}
    defined = {variant: score for variant, score in scores.items() if score is not None}
    if not defined:
        raise BadDataError(f"{task_name}: {metric} is undefined for every variant on the {chosen_on} cases")
    best = (max if higher_is_better else min)(defined, key=lambda variant: defined[variant])
    comparison = {
        "task": task_name,
        "best": best,
        "metric": metric,
        "chosen_on": chosen_on,
        "data_sha256": results[best]["data_sha256"],
        "params_sha256": results[best]["params_sha256"],
        "variants": {
            variant: {split: result[split] for split in ("val", "test") if split in result}
            for variant, result in results.items()
        },
    }
    write_json(out, comparison)
    return comparison
