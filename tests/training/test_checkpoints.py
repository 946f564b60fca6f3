"""What a folder of states holds, whatever moment a process was killed at."""

from pathlib import Path

import pytest
import torch

from condswin.training.checkpoints import Position, WholeFiles, newest
from condswin.training.ranks import a_loader_died


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Position]:
    """Three states, of which the first should have been removed when the process was killed."""
    positions = [Position(0, 4), Position(1, 0), Position(1, 2)]
    with monkeypatch.context() as killed:
        killed.setattr("condswin.training.checkpoints._keep_last", lambda _: None)
        for position in positions:
            WholeFiles().save_checkpoint({"at": torch.tensor(position)}, tmp_path / position.file_name)
    return positions


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def whole(*positions: Position) -> list[str]:
    return sorted(name for position in positions for name in (position.file_name, f"{position.file_name}.sha256"))


def test_what_a_killed_process_was_about_to_remove_is_removed(tmp_path: Path, three: list[Position]) -> None:
    assert newest(tmp_path) == (three[-1], tmp_path / three[-1].file_name)
    assert names(tmp_path) == whole(*three[1:])


@pytest.mark.parametrize("kept", [0, 2])
def test_a_checksum_whose_state_was_removed_or_never_written(tmp_path: Path, three: list[Position], kept: int) -> None:
    (tmp_path / three[kept].file_name).unlink()
    found = newest(tmp_path)
    assert found is not None
    assert names(tmp_path) == whole(*(position for position in three if position != three[kept]))


def test_a_damaged_state_takes_the_place_of_none(tmp_path: Path, three: list[Position]) -> None:
    damaged = tmp_path / three[-1].file_name
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert newest(tmp_path) == (three[1], tmp_path / three[1].file_name)
    assert names(tmp_path) == sorted([*whole(*three[:2]), f"{damaged.name}.damaged"])


def test_a_loader_that_dies_amid_a_state_is_not_taken_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then torch's writer fails to end its file, and that is the error that arrives."""

    def save(*_: object) -> None:
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 753920 vs 753808")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RuntimeError, match="unexpected pos") as raised:
        WholeFiles().save_checkpoint({}, tmp_path / "epoch-0000-batch-000001.ckpt")
    assert a_loader_died(raised.value)
    assert list(tmp_path.iterdir()) == []
