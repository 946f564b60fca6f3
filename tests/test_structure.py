"""The house rules that a machine can check."""

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from condswin.code import imports

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "condswin").rglob("*.py")
)


def needs(module: str) -> set[str]:
    """Modules that a module imports, without the packages that they lie in."""
    return {name for name in imports(module) if name in MODULES and not module.startswith(f"{name}.")}


def test_no_modules_import_each_other() -> None:
    order = list(TopologicalSorter({module: needs(module) for module in MODULES}).static_order())
    assert len(order) == len(MODULES)


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("condswin.steps.")])
def test_steps_import_no_step_and_no_front(module: str) -> None:
    others = ("condswin.steps.", "condswin.cli", "condswin.kubeflow")
    assert not {name for name in needs(module) if name.startswith(others)}


def test_the_library_knows_no_orchestrator() -> None:
    for path in (ROOT / "condswin").rglob("*.py"):
        text = path.read_text()
        assert "import kfp" not in text, path
        assert "from kfp" not in text, path
        assert not re.search(r"^\s*(import|from) (pipelines|components)\b", text, re.MULTILINE), path


def test_files_are_read_in_one_sitting() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for folder in ("condswin", "components", "pipelines", "tests")
        for path in Path(ROOT, folder).rglob("*.py")
        if (lines := path.read_text().count("\n")) > 400
    }
    assert not long
