"""Step: generate demo data in the real formats."""

from pathlib import Path

from condswin.config import Config, TaskName
from condswin.files import atomic_folder
from condswin.progress import progress
from condswin.tasks.generation import Generation
from condswin.tasks.loading import load

NOTE = "README.txt"


def demo_data(config: Config, task_name: TaskName, *, out: Path) -> int:
    """Generates the demo files of a task, or only a note if the parameters point to other data.

    Args:
        config: Parameters; generation depends on `seed` and the task's `demo` alone.
        task_name: Which task.
        out: Folder to write; replaced whole.

    Returns:
        Number of volumes.
    """
    generation = load(Generation, task_name, config)
    source = config.task(task_name).source
    with atomic_folder(out) as folder:
        if Path(source).resolve() != out.resolve():
            (folder / NOTE).write_text(f"Nothing was generated: {task_name}.source is {source}\n")
            return 0
        count = generation.count()
        with progress(f"generate {task_name} demo data", count) as advance:
            generation.write(folder, advance)
    return count
