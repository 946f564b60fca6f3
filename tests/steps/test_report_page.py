import re
from pathlib import Path

import pytest

from condswin import layout
from condswin.config.profiles import compose
from condswin.errors import BadDataError
from condswin.files import write_json
from condswin.registry.linked import send_report
from condswin.registry.tracking import tracked_run
from condswin.reporting.html import write_report
from condswin.steps.report import _nameless, read_comparisons, report
from tests.registry.toy import World, make_config
from tests.reporting.pages import task_report

pytest_plugins = ["tests.registry.fixtures"]


def test_a_page_for_the_registry_names_no_case(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(page, [task_report()])
    assert page.read_text().count("case-3") > 1
    assert "&lt;script&gt;bad.h5" in page.read_text()
    write_report(page, [_nameless(task_report())])
    shown = page.read_text()
    assert not re.findall(r"case-[0-9]|patient-[0-9]|bad\.h5|data:image", shown)
    assert "psnr superior to champion" in shown


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


def test_a_decision_on_another_network_is_not_this_comparison_s(workdir: Path) -> None:
    config, compared = compose(["demo"]), {"best": "swin", "weights_sha256": "w", "data_sha256": "d", "variants": {}}
    registered = {"variant": "swin", "weights_sha256": "w", "version": "2", "uri": "models:/a/2"}
    promoted = {"version": "2", "outcome": "promoted"}
    write_json(layout.comparison("segmentation"), compared)
    for there, decided, wanted in (
        (registered, promoted, ("models:/a/2", promoted)),
        (registered, promoted | {"version": "1"}, ("models:/a/2", None)),
        (registered | {"weights_sha256": "other"}, promoted, ("", None)),
        (registered | {"variant": "other"}, promoted, ("", None)),
    ):
        write_json(layout.registered("segmentation"), there)
        write_json(layout.promoted("segmentation"), decided)
        found = read_comparisons(config)["segmentation"]
        assert (found["registered"], found["promotion"]) == wanted


def test_evaluations_that_were_not_compared_are_refused(workdir: Path) -> None:
    compared = {"best": "swin", "weights_sha256": "w", "data_sha256": "d", "variants": {"swin": {}}}
    write_json(layout.comparison("segmentation"), compared)
    result = {"task": "segmentation", "variant": "swin", "data_sha256": "d", "weights_sha256": "other"}
    write_json(layout.evaluation("segmentation", "swin") / "metrics.json", result)
    with pytest.raises(BadDataError, match=r"evaluation/segmentation/swin: not what .* run condswin compare"):
        report(compose(["demo"]), out=Path("report.html"))
