"""What all tests share: no user's settings, one thread per worker, small parameters, and no skip unnoticed in CI."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from condswin.config.profiles import compose
from condswin.config.root import Config

# Two workers of two threads each would fight over two cores.
torch.set_num_threads(1)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

#: Holds a few small real files on the project's own machines, and in their CI.
SHARED = Path(__file__).parents[2] / "shared"
#: What CI may lack. A test that is skipped there for another reason fails, or nobody would notice.
MAY_LACK = ["no GPU", *([] if SHARED.is_dir() else ["no real files"])]


def _fail_if_skipped_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(tuple(MAY_LACK)):
            report.outcome, report.longrepr = "failed", f"Skipped, which is a failure in CI: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of small real files, `mri` and `ct`."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real files in {SHARED / 'data'}")
    return SHARED / "data"


@pytest.fixture(autouse=True)
def _no_foreign_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny() -> Config:
    """Parameters with which a whole pipeline takes seconds."""
    return compose(["demo", "tiny"])


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
