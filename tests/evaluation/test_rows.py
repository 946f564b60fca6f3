import math
from pathlib import Path

import pytest

from condswin.errors import BadFileError
from condswin.evaluation.results import read_rows, write_rows


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"case": "17", "acquisition": "A", "psnr": 31.25}, {"case": "b", "acquisition": "1", "psnr": math.nan}]
    write_rows(tmp_path / "cases.csv", rows)
    first, second = read_rows(tmp_path / "cases.csv", ["psnr", "ssim"])
    assert first == rows[0]
    assert (second["case"], second["acquisition"]) == ("b", "1")
    assert math.isnan(float(second["psnr"]))


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"cases\.csv: no table of cases"):
        read_rows(tmp_path / "cases.csv", ["psnr"])
    (tmp_path / "cases.csv").write_text("case,psnr\na,high\n")
    with pytest.raises(BadFileError, match="could not convert string to float: 'high'"):
        read_rows(tmp_path / "cases.csv", ["psnr"])
