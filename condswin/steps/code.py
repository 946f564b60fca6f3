"""Step: which code each step's result depends on, for DVC."""

from pathlib import Path

from condswin.code import closure
from condswin.config.names import OWN, TASKS, TaskName
from condswin.files import write_json
from condswin.outputs import open_output

#: Steps whose results are kept, and for which tasks.
STEPS: dict[str, tuple[TaskName, ...]] = {
    **dict.fromkeys(("demo_data", "ingest", "prepare", "train", "evaluate", "compare"), TASKS),
    **dict.fromkeys(("baseline", "data_card"), tuple(OWN)),
}
#: The step that is on all tasks.
REPORT = "report"


def code(what: TaskName, *, out: Path) -> list[Path]:
    """Writes `<step>.json` for each step of a task: checksums by file of what it runs for the task.

    Args:
        what: The task, or `report` for the step that is on all of them.
        out: Folder.

    Returns:
        The files.

    Raises:
        OutputError: Writing to `out` would hurt something.
    """
    if what == REPORT:
        merged = {path: digest for task in TASKS for path, digest in closure(REPORT, task).items()}
        closures = {f"{REPORT}.json": merged}
    else:
        closures = {f"{step}.json": closure(step, what) for step, tasks in STEPS.items() if what in tasks}
    output = open_output(out, step="code", inputs=[])
    if not output.is_current(closures):
        output.claim(closures)
        for name, files in closures.items():
            write_json(out / name, files)
        output.finish(closures, closures)
    return [out / name for name in closures]
