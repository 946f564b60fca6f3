"""Which of condswin's files a step's result depends on: what it imports, directly or not, and their checksums."""

import ast
from functools import cache
from pathlib import Path

from condswin.config.names import TaskName
from condswin.files import sha256
from condswin.tasks.loading import PACKAGES

ROOT = Path(__file__).parents[1]
PACKAGE = Path(__file__).parent.name
#: A module of this package stands for the task's module of the same name, which `tasks.loading` imports by name.
PARTS = f"{PACKAGE}.tasks"


def closure(step: str, task: TaskName) -> dict[str, str]:
    """Checksums of all files of condswin that a step may run for a task.

    Imports inside of functions count as well. A package's HTML templates belong to its modules.

    Args:
        step: A module of `condswin.steps`.
        task: Which task.

    Returns:
        SHA-256 by path relative to the folder that holds the package, sorted.
    """
    found: set[str] = set()
    waiting = [f"{PACKAGE}.steps.{step}"]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found.add(module)
        waiting += imports(module)
        folder, _, part = module.rpartition(".")
        if folder == PARTS and _path(implementation := f"{PACKAGES[task]}.{part}") is not None:
            waiting.append(implementation)
    files = {path for module in found for path in _files(module)}
    return {path.relative_to(ROOT).as_posix(): sha256(path) for path in sorted(files)}


@cache
def imports(module: str) -> list[str]:
    """Modules of condswin that a module imports, and the packages that they lie in."""
    path = _path(module)
    if path is None:
        return []
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # What is imported may be a module, or a name in one.
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {name for name in names | {module} if name.split(".")[0] in (PACKAGE, *_outside()) and _path(name)}
    parents = {".".join(name.split(".")[:depth]) for name in ours for depth in range(1, name.count(".") + 1)}
    return sorted((ours | parents) - {module})


def _outside() -> set[str]:
    """Packages of tasks that are not part of condswin."""
    return {package.split(".")[0] for package in PACKAGES.values()}


def _path(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _files(module: str) -> list[Path]:
    path = _path(module)
    return [] if path is None else [path, *path.parent.glob("*.html")]
