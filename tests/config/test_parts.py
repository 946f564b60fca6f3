import pytest

from condswin.config.parts import part, whole
from condswin.config.profiles import compose

SETTINGS = {
    "segmentation": ["segmentation.prepare.neighbours=2", "segmentation.ingest.unknown_geometry=assume"],
    "reconstruction": ["reconstruction.undersample.accelerations=[8]", "reconstruction.ingest.undersampled=accept"],
}


@pytest.mark.parametrize("task", SETTINGS)
@pytest.mark.parametrize("step", ["train", "evaluate", "predict", "report", "promote"])
def test_what_runs_a_network_knows_how_its_inputs_are_made(step: str, task: str) -> None:
    config = compose(["demo"], [*SETTINGS[task], f"{task}.gate.patients=5"])
    given = whole(part(config, step, task, "swin" if step == "train" else ""), task).task(task)
    wanted = config.task(task)
    assert given.prepared_with() == wanted.prepared_with()
    assert given.ingest == wanted.ingest
    if step == "report":
        assert (given.gate.patients, given.source) == (5, wanted.source)
