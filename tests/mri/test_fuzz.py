"""Spoilt files (see `mutants.py`) are refused with a reason or read, in processes of their own, under limits."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import REPOSITORY
from .mutants import MEGABYTES, MUTATIONS, SECONDS

FILES, PROCESSES = 240, 2


def read_mutants(folder, first, last):
    command = [sys.executable, str(Path(__file__).with_name("mutants.py")), str(folder), str(first), str(last)]
    done = subprocess.run(command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, timeout=280)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"killed by {done.returncode} at {lines[-1:]}: {done.stderr[-2000:]}"
    return [line for line in lines if "outcome" in line]


def clean_environment():
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutants")
    share = FILES // PROCESSES
    with ThreadPoolExecutor(PROCESSES) as pool:
        parts = pool.map(lambda part: read_mutants(folder, part * share, (part + 1) * share), range(PROCESSES))
        return [report for part in parts for report in part]


def test_none_crashes_or_hangs(reports):
    assert [report["number"] for report in reports] == list(range(FILES))
    assert max(report["seconds"] for report in reports) < SECONDS


def test_none_takes_much_memory(reports):
    assert max(report["megabytes"] for report in reports) < MEGABYTES


def test_errors_name_the_file_and_say_what_is_wrong(reports):
    harmless = {mutation.__name__ for mutation, sound in MUTATIONS.items() if sound}
    for report in reports:
        if report["outcome"] == "read":
            assert report["mutation"] in harmless, report
        else:
            assert f"mutant{report['number']}.h5: " in report["outcome"]
            assert 20 < len(report["outcome"].split(": ", 1)[1]) < 400, report
    for mutation in MUTATIONS:
        assert any(r["mutation"] == mutation.__name__ and r["outcome"] != "read" for r in reports)


def test_outputs_are_whole_or_absent(reports):
    for report in reports:
        assert report["left"] == ([f"mutant{report['number']}.h5"] if report["outcome"] == "read" else []), report
