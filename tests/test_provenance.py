import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from condswin import provenance
from condswin.provenance import git_state, libraries

NOWHERE = {"git_commit": "unknown", "git_dirty": "unknown"}


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's folder in a repository; the current folder is in another one."""
    monkeypatch.delenv("CONDSWIN_GIT_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "theirs" / "condswin"
    folder.mkdir(parents=True)
    shutil.copy(provenance.__file__, folder)
    (folder.parent / "params.yaml").write_text("seed: 1\n")
    (folder.parent / "metrics.json").write_text("{}")
    monkeypatch.setattr(provenance, "_PACKAGE", folder)
    users = tmp_path / "users"
    users.mkdir()
    git(users, "init", "-q")
    git(users, "commit", "-q", "--allow-empty", "-m", "x")
    monkeypatch.chdir(users)
    return folder


def test_the_commit_is_that_of_the_package_not_of_the_current_folder(package: Path) -> None:
    repository = package.parent
    assert git_state() == NOWHERE
    git(repository, "init", "-q")
    git(repository, "add", "metrics.json")
    git(repository, "commit", "-qm", "somebody else's repository around an installed package")
    assert git_state() == NOWHERE
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "x")
    found = git_state()
    assert (len(found["git_commit"]), found["git_dirty"]) == (40, "false")
    (repository / "metrics.json").write_text("{ }")  # what the pipeline writes is not its code
    assert git_state()["git_dirty"] == "false"
    (repository / "params.yaml").write_text("seed: 2\n")
    assert git_state() == {**found, "git_dirty": "true"}


def test_an_image_says_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDSWIN_GIT_COMMIT", "c" * 40)
    assert git_state() == {"git_commit": "c" * 40, "git_dirty": "unknown"}


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONDSWIN_GIT_COMMIT", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert git_state() == NOWHERE


def test_libraries_are_told_with_their_versions() -> None:
    found = libraries()
    assert found["numpy"] == np.__version__
    assert found["python"] == platform.python_version()
    assert {"torch", "lightning", "einops", "monai", "h5py", "nibabel", "scipy"} <= set(found)
