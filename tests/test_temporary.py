import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from condswin.temporary import owned_folder

#: Owns a folder, as does a child of its, until both are killed.
OWNER = """
import subprocess, sys
from condswin.temporary import owned_folder
with owned_folder("toy-") as (path, lock):
    (path / "scan").touch()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    print(path, child.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def folders(place: Path) -> list[Path]:
    with owned_folder("toy-") as (mine, _):
        return sorted(set(place.iterdir()) - {mine})


def test_a_folder_goes_with_the_block(place: Path) -> None:
    with pytest.raises(ZeroDivisionError), owned_folder("toy-") as (path, _):  # noqa: PT012
        (path / "scan").touch()
        assert folders(place) == [path]
        raise ZeroDivisionError
    assert list(place.iterdir()) == []


def test_what_killed_owners_left_goes_with_the_next_and_nothing_else(place: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(place)}
    command = [sys.executable, "-c", OWNER]
    here = Path(__file__).parents[1]
    with subprocess.Popen(
        command, cwd=here, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        name, child = owner.stdout.readline().split()
        # Without a lock, of another prefix, and a link to what is elsewhere.
        others = [place / "toy-theirs", place / "their-toy", place / "toy-link"]
        others[0].mkdir()
        others[1].mkdir()
        (others[1] / "lock").touch()
        others[2].symlink_to(others[1])
        left = Path(name)
        assert folders(place) == sorted([left, *others])
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert folders(place) == sorted([left, *others])  # its child lives
        os.kill(int(child), signal.SIGKILL)
    give_up = time.monotonic() + 10
    while (found := folders(place)) != sorted(others) and time.monotonic() < give_up:
        time.sleep(0.02)
    assert found == sorted(others)
    assert (others[1] / "lock").exists()
