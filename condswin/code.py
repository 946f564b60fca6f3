"""Which code a step's result depends on: the files that it imports, directly or not, and their checksums."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

from condswin.config.names import PACKAGES, TaskName
from condswin.files import sha256

PACKAGE = __name__.partition(".")[0]
#: A module of this package stands for the task's module of the same name, which `tasks.loading` imports by name.
PARTS = f"{PACKAGE}.tasks"
#: What templates of pages are made of.
TEMPLATES = ("html", "css", "js")


def closure(step: str, task: TaskName) -> dict[str, str]:
    """Checksums of all files, condswin's and those of tasks' packages, that a step may run for a task.

    Imports inside of functions count as well. A package's templates of pages belong to its modules.

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
    files = {name: path for module in found for name, path in _files(module)}
    return {name: sha256(path) for name, path in sorted(files.items())}


@cache
def imports(module: str) -> list[str]:
    """Modules of condswin, and of packages of tasks, that a module imports, and the packages that they lie in."""
    path = _path(module)
    if path is None:
        return []
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            # What is imported may be a module, or a name in one.
            names |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    known = {PACKAGE, *map(_top, PACKAGES.values())}
    ours = {name for name in names | {module} if _top(name) in known and _path(name)}
    parents = {".".join(name.split(".")[:depth]) for name in ours for depth in range(1, name.count(".") + 1)}
    return sorted((ours | parents) - {module})


def _top(module: str) -> str:
    return module.partition(".")[0]


@cache
def _root(package: str) -> Path | None:
    """The folder that holds a package; nothing is imported to find it."""
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]).parent if places else None


def _path(module: str) -> Path | None:
    root = _root(_top(module))
    if root is None:
        return None
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _files(module: str) -> Iterator[tuple[str, Path]]:
    """A module's files by their path relative to the folder that holds its package."""
    path, root = _path(module), _root(_top(module))
    if path is not None and root is not None:
        for file in (path, *(found for kind in TEMPLATES for found in sorted(path.parent.glob(f"*.{kind}")))):
            yield file.relative_to(root).as_posix(), file
