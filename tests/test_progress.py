"""What a log shows of progress; on a terminal rich draws the bar."""

import pytest

from condswin import progress as module
from condswin.progress import duration, progress, track


def test_log_lines_have_a_bar_counts_and_the_latest_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LOG_EVERY", 0.0)
    with progress("train", 4) as advance:
        for step in range(4):
            advance(f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train [#####...............] 1/4 after 0 s, 0 s left loss 0"
    assert lines[-1] == "train [####################] 4/4 after 0 s loss 3"
    assert len(lines) == 4


def test_work_of_less_than_two_seconds_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), "check", total=3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_time_left_counts_only_what_this_process_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half was done before an interruption: four more in ten minutes make six of them an hour's quarter."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with progress("train", 20, done=10) as advance:
        for _ in range(4):
            clock[0] += 150
            advance()
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "train [##############......] 14/20 after 10 min 0 s, 15 min 0 s left"
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (3660, "1 h 1 min"), (90000, "25 h 0 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_work_that_may_end_before_says_at_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LOG_EVERY", 0.0)
    with progress("train", 4, at_most=True) as advance:
        advance()
    assert capsys.readouterr().err == "train [#####...............] 1/4 after 0 s, at most 0 s left\n"
