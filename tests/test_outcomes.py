"""What is told instead of failing, and what fails so that it is tried again."""

import errno
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from condswin.errors import (
    BadDataError,
    BadFileError,
    CheckpointError,
    ConfigError,
    DivergedError,
    ImageError,
    MachineError,
    OutputError,
    SourceError,
)
from condswin.outcomes import LONGEST, settled


def told(error: Exception) -> str:
    @settled
    def train(task: str, variant: str) -> None:
        raise error

    return train("reconstruction", variant="swin")


def from_none(cause: Exception) -> BadFileError:
    try:
        try:
            raise cause
        except OSError:
            raise BadFileError("a.h5", "cannot be read") from None
    except BadFileError as error:
        return error


def test_success_says_nothing() -> None:
    @settled
    def prepare(task: str) -> None:
        assert task == "segmentation"

    assert prepare("segmentation") == ""


@pytest.mark.parametrize(
    "error",
    [
        BadFileError(Path("a.h5"), "is truncated"),
        BadDataError("patient 1 is in two splits"),
        ConfigError("train.epochs: too many"),
        DivergedError("loss is nan in epoch 2"),
    ],
)
def test_what_no_try_would_mend_is_told(error: Exception) -> None:
    assert told(error) == f"train reconstruction swin: {error}"


@pytest.mark.parametrize(
    "error",
    [
        SourceError("s3://bucket/a: no answer in time; run again"),
        OutputError("/data: no room"),
        CheckpointError("cannot be written"),
        ImageError("other code"),
        MachineError("device: cuda, but torch finds no GPU here"),
        RuntimeError("CUDA out of memory"),
        from_none(OSError(errno.EIO, "Input/output error")),
    ],
)
def test_what_another_try_may_mend_fails(error: Exception) -> None:
    with pytest.raises(type(error)):
        told(error)


def test_a_library_s_complaint_about_content_is_not_the_system_s(tmp_path: Path) -> None:
    """h5py raises OSError for both; of a disk's it says the number."""
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")

    @settled
    def ingest(task: str) -> None:
        try:
            h5py.File(tmp_path / "a.h5")
        except OSError as error:
            raise BadFileError(tmp_path / "a.h5", f"not readable ({error})") from None

    assert ingest("reconstruction").startswith(f"ingest reconstruction: {tmp_path / 'a.h5'}: not readable")


@pytest.mark.parametrize("make", [str.upper, lambda text: f"{text}\n" * 90, lambda text: text * 400])
def test_an_outcome_fits_into_a_parameter_and_is_harmless_text(make: Callable[[str], str]) -> None:
    outcome = told(BadDataError(make("bad name \x1b[2J é: ")))
    assert len(outcome) <= LONGEST
    assert len(outcome.encode()) < 10_000
    assert "\x1b" not in outcome
