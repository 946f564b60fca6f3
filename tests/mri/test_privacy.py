"""Nothing of a person, a date or a machine leaves the ingested files, in a whole run."""

import json
import logging
import sys

import h5py
import numpy as np
import pytest

from condswin import cli
from condswin.config.profiles import compose, write_config
from condswin.config.reading import parse_config

from .conftest import HEADER, REPOSITORY

SECRETS = (
    "PERSON-42",
    "SECRET-17",
    "QUIXOTE^JANE",
    "QUIXOTE",
    "2017-03-04",
    "SERIAL-4711",
    "SECRET-ATTRIBUTE",
    "SECRET-SITE",
)


@pytest.fixture
def source(write_volume, tmp_path):
    """Eight files of people with names, two of them for testing, that say who they are wherever they can."""
    for number in range(8):
        folder = tmp_path / "source" / ("singlecoil_val" if number > 5 else "singlecoil_train")
        header = HEADER.replace(b"</studyInformation>", b"</studyInformation><note>SECRET-SITE</note>")
        path = write_volume(
            f"file{number}.h5",
            folder=folder,
            seed=number,
            rows=64,
            columns=48,
            size=(32, 32),
            header=header,
            attributes={"patient_id": f"PERSON-42-{number}", "institution": "SECRET-ATTRIBUTE"},
        )
        with h5py.File(path, "a") as file:
            file["kspace"].attrs["operator"] = "SECRET-ATTRIBUTE"
            file["operator"] = np.bytes_(b"SECRET-ATTRIBUTE")
    return tmp_path / "source"


@pytest.fixture
def run(workdir, source, capfd, caplog, monkeypatch):
    """Runs commands in an empty folder and keeps everything that they said."""
    values = compose(["demo", "tiny"]).model_dump(mode="json")
    values["reconstruction"]["source"] = str(source)
    values["reconstruction"]["variants"].pop("conditional-light")
    values["reconstruction"]["train"]["epochs"] = 1
    write_config(parse_config(values, origin="test"), workdir / "params.yaml", comment="test")
    said = []

    def command(*arguments, ends=0):
        monkeypatch.setattr(sys, "argv", ["condswin", *arguments])
        code = 0
        with caplog.at_level(logging.DEBUG):
            try:
                cli.main()
            except SystemExit as end:
                code = end.code or 0
        assert code == ends, capfd.readouterr()
        said.extend(capfd.readouterr())

    return command, said, caplog


def test_no_artefact_of_a_run_tells_who_was_scanned(run, workdir, source):
    command, said, log = run
    command("ingest", "reconstruction")
    command("undersample")
    command("data-card", "reconstruction")
    command("baseline", "reconstruction")
    command("train", "reconstruction", "swin")
    command("evaluate", "reconstruction", "swin")
    command("compare", "reconstruction")
    command("register", "reconstruction")
    command(
        "predict", "--model", "models/reconstruction/swin", str(source / "singlecoil_val" / "file7.h5"), "--out", "p"
    )
    # Messages of refusal are artefacts too.
    damaged = source / "singlecoil_val" / "file6.h5"
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    command("ingest", "reconstruction", "--out", "again", ends=1)

    # What is ingested is the source, copied bit by bit; everything else must not know.
    written = [
        p
        for p in workdir.rglob("*")
        if p.is_file()
        and not (p.suffix == ".h5" and (workdir / "data" / "ingested" in p.parents or source in p.parents))
    ]
    names = {str(path.relative_to(workdir)) for path in written}
    for expected in (
        "mlflow.db",
        "data/ingested/reconstruction/manifest.json",
        "data/prepared/reconstruction/manifest.json",
        "report/card-reconstruction/card.html",
        "evaluation/reconstruction/swin/metrics.json",
        "p/file7.h5",
    ):
        assert expected in names
    for secret in SECRETS:
        for path in written:
            assert secret.encode() not in path.read_bytes(), f"{secret} in {path}"
            assert secret not in str(path.relative_to(workdir))
        assert not any(secret in text for text in said)
        assert secret not in log.text
    manifest = json.loads((workdir / "data/ingested/reconstruction/manifest.json").read_text())
    assert len({case["patient"] for case in manifest["cases"]}) == 8
    assert REPOSITORY not in workdir.parents
