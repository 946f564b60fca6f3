"""The command line, called as a user does."""

import contextlib
import io
import sys
from pathlib import Path

import pytest

from condswin.cli import main


def condswin(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Runs the command line in this process, which has torch loaded already, inside a folder.

    Returns:
        Its standard output, or its standard error if it is to fail.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["condswin", *arguments])
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == code, out.getvalue() + err.getvalue()
    return err.getvalue() if code else out.getvalue()
