"""In CI a skipped test has failed, unless it is for something that machines may lack."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest

def test_unmet():
    pytest.skip("no Docker")

@pytest.mark.skipif(True, reason="not today")
def test_marked():
    pass

@pytest.mark.xfail
def test_known_failure():
    assert False

def test_on_gpu():
    pytest.skip("no GPU")

def test_real_files(real_data):
    pass
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, int]]:
    """Runs the tests with our conftest in a repository, which has a folder `shared` beside it or not."""

    def run(ci: str, shared: bool) -> dict[str, int]:
        monkeypatch.setenv("CI", ci)
        tests = pytester.mkpydir("code") / "tests"
        tests.mkdir()
        (tests / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
        (tests / "test_some.py").write_text(TESTS)
        (tests / "test_module.py").write_text("import pytest; pytest.importorskip('no_such_package')")
        if shared:
            pytester.mkdir("shared")
        return pytester.runpytest("--continue-on-collection-errors", tests).parseoutcomes()

    return run


def test_in_ci(run: Callable[..., dict[str, int]]) -> None:
    assert run("true", shared=False) == {"failed": 1, "errors": 2, "skipped": 2, "xfailed": 1}


def test_in_ci_with_real_files_promised(run: Callable[..., dict[str, int]]) -> None:
    assert run("true", shared=True) == {"failed": 1, "errors": 3, "skipped": 1, "xfailed": 1}


def test_elsewhere(run: Callable[..., dict[str, int]]) -> None:
    assert run("", shared=True) == {"skipped": 5, "xfailed": 1}
