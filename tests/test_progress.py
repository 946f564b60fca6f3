"""What a log shows of progress; on a terminal rich draws the bar."""

import pytest

from condswin import progress as module
from condswin.progress import progress, track


def test_log_lines_have_a_bar_counts_and_the_latest_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LOG_EVERY", 0.0)
    with progress("train", 4) as advance:
        for step in range(4):
            advance(f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train [#####...............] 1/4 after 0 s loss 0"
    assert lines[-1] == "train [####################] 4/4 after 0 s loss 3"
    assert len(lines) == 4


def test_work_of_less_than_two_seconds_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), "check", total=3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
