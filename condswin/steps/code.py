"""Step: which code each step's result depends on, for DVC."""

from pathlib import Path

from condswin.code import closure
from condswin.config.names import TASKS
from condswin.files import write_json
from condswin.outputs import open_output

#: Steps whose results are kept, and for which tasks.
STEPS = {
    **dict.fromkeys(("demo_data", "ingest", "prepare", "train", "evaluate", "compare", "report"), TASKS),
    **dict.fromkeys(("baseline", "data_card"), ("reconstruction",)),
}


def code(*, out: Path) -> list[Path]:
    """Writes `<step>-<task>.json`: checksums by file of what the step runs for the task.

    Files of equal content are left as they are: another DVC may be reading them.

    Args:
        out: Folder.

    Returns:
        The files.

    Raises:
        OutputError: Writing to `out` would hurt something.
    """
    names = {f"{step}-{task}.json": (step, task) for step, tasks in STEPS.items() for task in tasks}
    output = open_output(out, step="code", inputs=[])
    closures = {name: closure(*place) for name, place in names.items()}
    if not output.is_current(closures):
        output.claim(names)
        for name, files in closures.items():
            write_json(out / name, files)
        output.finish(names, closures)
    return [out / name for name in names]
