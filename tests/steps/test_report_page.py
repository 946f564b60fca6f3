from pathlib import Path

import pytest

from condswin.files import write_json
from condswin.registry.linked import send_report
from condswin.registry.tracking import tracked_run
from condswin.reporting.html import TaskReport, write_report
from condswin.steps.report import _nameless
from tests.registry.toy import World, make_config

pytest_plugins = ["tests.registry.fixtures"]

RULE = {"rule": "psnr superior to champion", "outcome": "broken", "text": "gain -1", "worst": ["Jane Doe"]}
REPORT = TaskReport(
    name="reconstruction",
    table=[{"variant": "swin", "psnr": "20"}],
    best="swin",
    metric="psnr",
    chosen_on="val",
    splits={"test": 3},
    rejected=[{"file": "Jane Doe", "reason": "damaged"}],
    figures={"Each line is one test case.": "data:image/png;base64,"},
    cases=[{"case": "Jane Doe", "psnr": "20"}],
    pictures={"swin, worst test case by psnr.": "data:image/png;base64,Jane Doe"},
    promotion={"outcome": "refused", "headline": "refused", "remarks": [], "rules": [RULE], "reasons": []},
    facts={},
)


def test_a_page_for_the_registry_names_no_case(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(page, [REPORT])
    assert page.read_text().count("Jane Doe") == 4
    write_report(page, [_nameless(REPORT)])
    shown = page.read_text()
    assert "Jane" not in shown
    assert "gain -1" in shown


def test_a_report_is_on_the_run_of_its_version(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    page, registered = world.folder / "report.html", world.folder / "registered.json"
    page.write_text("<html>")
    send_report(world.config, registered, page)  # nothing was registered
    with tracked_run(world.config, "register") as run_id:
        pass
    write_json(registered, {"run_id": run_id})
    send_report(world.config, registered, page)
    assert [entry.path for entry in world.client.list_artifacts(run_id, "report")] == ["report/report.html"]
    assert capsys.readouterr().err == ""
    write_json(registered, {"run_id": "0" * 32})  # of another registry
    send_report(world.config, registered, page)
    send_report(make_config("sqlite:////nonexistent/mlflow.db"), registered, page)
    said = capsys.readouterr().err
    assert said.count("report.html: not on MLflow's page of ") == 2
