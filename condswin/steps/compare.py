"""Step: set the variants of a task beside each other and name the best by validation."""

from pathlib import Path
from typing import Any

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.errors import BadDataError
from condswin.outputs import write_result
from condswin.tasks.facts import Facts
from condswin.tasks.loading import load


def compare(config: Config, task_name: TaskName, *, results: dict[str, Any], out: Path) -> dict[str, Any]:
    """Compares evaluated variants.

    The best is chosen on validation cases, so that the test figures stay an honest estimate; where there are none,
    on the test cases, and `chosen_on` says so.

    Args:
        config: Parameters.
        task_name: Which task.
        results: What the evaluate step returned (and wrote as `metrics.json`), by variant.
        out: JSON file to write.

    Returns:
        What the file holds: `task`, `best`, `metric`, `chosen_on`, `data_sha256`, `params_sha256` and
        `weights_sha256` of the best (empty if it is no network), and under `variants` the splits' summaries.

    Raises:
        BadDataError: The variants were not evaluated on the same data, or none has the metric.
    """
    metric, higher_is_better = next(iter(load(Facts, task_name, config).metrics.items()))
    results = dict(sorted(results.items()))
    if len({result["data_sha256"] for result in results.values()}) != 1:
        raise BadDataError(f"{task_name}: {', '.join(results)} were evaluated on different data; evaluate them again")
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
        "weights_sha256": results[best].get("weights_sha256", ""),
        "variants": {
            variant: {split: result[split] for split in ("val", "test") if split in result}
            for variant, result in results.items()
        },
    }
    write_result(out, "compare", comparison)
    return comparison
