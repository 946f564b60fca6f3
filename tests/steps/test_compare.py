from typing import Any

import pytest

from condswin.files import read_json
from condswin.outputs import WRITTEN_BY
from condswin.steps.compare import compare
from tests.registry.toy import World

pytest_plugins = ["tests.registry.fixtures"]


def evaluated(psnr: float, **facts: Any) -> dict[str, Any]:
    return {"data_sha256": "d", "params_sha256": "p", "val": {"psnr": {"mean": psnr}}, "test": {}, **facts}


@pytest.mark.parametrize(("psnr", "weights"), [(20.0, "w"), (10.0, "")])
def test_the_comparison_names_the_weights_that_won(psnr: float, weights: str, world: World) -> None:
    out = world.folder / "comparison.json"
    results = {"swin": evaluated(psnr, weights_sha256="w"), "no-network": evaluated(15.0)}
    comparison = compare(world.config, "reconstruction", results=results, out=out)
    assert comparison["weights_sha256"] == weights
    assert read_json(out) == {WRITTEN_BY: "condswin compare", **comparison}
