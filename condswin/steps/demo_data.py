"""Step: generate demo data in the real formats."""

import tempfile
from pathlib import Path

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.outputs import open_output
from condswin.progress import progress
from condswin.sources.keys import is_fetched
from condswin.tasks.generation import Generation
from condswin.tasks.loading import load

NOTE = "README.txt"


def demo_data(config: Config, task_name: TaskName, *, out: Path, overwrite: bool = False) -> int:
    """Generates the demo files of a task, or only a note if the parameters point to other data.

    Args:
        config: Parameters; generation depends on `seed` and the task's `demo` alone.
        task_name: Which task.
        out: Folder to write. Demo files of an earlier run are replaced.
        overwrite: Write into a folder that holds other files too.

    Returns:
        Number of cases.

    Raises:
        OutputError: Writing to `out` would hurt something.
    """
    source = config.task(task_name).source
    generated = Path(source).resolve() == out.resolve()
    inputs = [] if generated or is_fetched(source) else [Path(source)]
    output = open_output(out, step="demo-data", inputs=inputs, overwrite=overwrite)
    if not generated:
        output.claim([NOTE])
        (out / NOTE).write_text(f"Nothing was generated: {task_name}.source is {source}\n")
        output.finish([NOTE])
        return 0
    generation = load(Generation, task_name, config)
    count = generation.count()
    # Beside the folder, so that its files are moved into it whole.
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=out.absolute().parent) as scratch:
        with progress(f"generate {task_name} demo data", count) as advance:
            generation.write(Path(scratch), advance)
        names = sorted(str(path.relative_to(scratch)) for path in Path(scratch).rglob("*") if path.is_file())
        output.claim(names)
        for name in names:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            Path(scratch, name).replace(out / name)
    output.finish(names)
    return count
