"""Step: predict the validation and test cases by the task's reference method, the one to beat."""

from functools import partial
from pathlib import Path
from typing import Any

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.errors import ConfigError
from condswin.evaluation.folder import known_evaluation, write_evaluation
from condswin.manifest import Manifest
from condswin.outputs import open_output
from condswin.tasks.facts import Facts
from condswin.tasks.judging import Judging
from condswin.tasks.loading import load
from condswin.tasks.reference import Reference
from condswin.validity import make_key


def baseline(
    config: Config, task_name: TaskName, *, prepared: Path, out: Path, overwrite: bool = False
) -> dict[str, Any]:
    """Tunes the reference method on validation cases and scores it as a trained variant is scored.

    Args:
        config: Parameters.
        task_name: Which task.
        prepared: Output of the prepare step.
        out: Folder for `predictions/<split>/`, `<split>-cases.csv`, `pictures/` and `metrics.json`. A whole evaluation
            of the same data and code is kept.
        overwrite: Write into a folder that holds other files too.

    Returns:
        What `metrics.json` holds: as of the evaluate step, with `settings`, what was chosen on validation cases.

    Raises:
        ConfigError: The task has no reference method.
        BadDataError: There is no validation case to tune on, or no test case.
        OutputError: Writing to `out` would hurt something.
    """
    name = load(Facts, task_name, config).reference_method
    if not name:
        raise ConfigError(f"{task_name}: has no reference method to be a baseline")
    manifest = Manifest.read(prepared, task_name)
    manifest.verify(prepared)
    manifest.require("val", prepared)
    reference = load(Reference, task_name, config)
    key = make_key("baseline", task_name, parameters={}, inputs={"data": manifest.fingerprint()})
    output = open_output(out, step="baseline", inputs=[prepared], overwrite=overwrite)
    if (known := known_evaluation(output, key)) is not None:
        return known
    cases = list(load(Judging, task_name, config).case_files(prepared / "val").values())
    # Evenly over the names, which follow the scans: not the first dozen of one kind.
    settings = reference.tune(cases[:: -(-len(cases) // reference.tuning_cases)])
    return write_evaluation(
        config,
        manifest,
        partial(reference.predict, settings=settings),
        prepared=prepared,
        output=output,
        key=key,
        variant=name,
        params_sha256="",
        settings=settings,
    )
