"""What is told of a training: measures of each epoch, pictures, and nothing that changes it."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from condswin.config.root import Config
from condswin.config.train import EarlyStoppingConfig, ScheduleConfig, TrainConfig
from condswin.errors import ConfigError
from condswin.reporting.training import drawing
from condswin.training import Fitted
from condswin.training.history import Rows
from condswin.training.shown import Epoch
from condswin.training.stalling import require_validation
from tests.training.runs import TASK, KilledError, run, states


def trained(*arguments: Any, **settings: Any) -> Fitted:
    fitted = run(*arguments, **settings)
    assert fitted is not None
    return fitted


@pytest.fixture(scope="module")
def whole(tiny: Config, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return trained(tiny, prepared, folder), folder


def test_pictures_change_nothing_and_are_there_once_after_an_interruption(
    tiny: Config, prepared: Path, tmp_path: Path, whole: tuple[Fitted, Path]
) -> None:
    """Killed within an epoch, and again after pictures were drawn and before the epoch's state was saved."""
    drawn: list[tuple[int, list[str]]] = []

    def draw(epoch: Epoch, folder: Path) -> None:
        assert folder == tmp_path
        assert epoch.monitor == "val/slice_psnr"
        drawn.append((len(epoch.rows), [shown.name for shown in epoch.shown]))
        if len(drawn) == 3:
            raise KilledError

    settings: dict[str, Any] = {"draw": draw, "pictures": 3, "checkpoint_minutes": 1e-9}
    assert run(tiny, prepared, tmp_path, (1, 2), **settings) is None
    assert run(tiny, prepared, tmp_path, **settings) is None
    fitted = trained(tiny, prepared, tmp_path, **settings)
    assert fitted.history == whole[0].history
    for one, other in zip(fitted.network.parameters(), whole[0].network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [count for count, _ in drawn] == [1, 2, 3, 3, 4]
    slices = drawn[0][1]
    assert len(set(slices)) == len(sorted((prepared / "val").glob("*.h5"))[:3])
    assert all(names == slices for _, names in drawn)
    for name in ("epoch-0001.csv", "epoch-0003.csv"):
        assert (tmp_path / "order" / name).read_bytes() == (whole[1] / "order" / name).read_bytes()


def test_pictures_of_an_epoch_are_drawn(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/.partial-of-a-kill.png").touch()
    trained(tiny, prepared, tmp_path, epochs=1, pictures=1, draw=drawing(tiny, TASK))
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert found == ["pictures/epoch-0000-routers-1.png", "pictures/epoch-0000.png", "training.png"]
    assert all(min(Image.open(tmp_path / name).size) > 150 for name in found)


def test_a_picture_that_cannot_be_drawn_ends_no_training(
    tiny: Config, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").write_text("a file")
    trained(tiny, prepared, tmp_path, epochs=1, draw=drawing(tiny, TASK))
    assert f"{tmp_path}: the pictures of epoch-0000 are not drawn (" in capsys.readouterr().err


def test_gradient_norms_are_those_before_clipping(
    tiny: Config, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms, clip = [], torch.nn.utils.clip_grad_norm_

    def noted(*arguments: Any, **others: Any) -> torch.Tensor:
        norm = clip(*arguments, **others)
        norms.append(float(norm))
        return norm

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", noted)
    (row,) = trained(tiny, prepared, tmp_path, epochs=1, gradient_clip=1e-3).history
    assert len(norms) > 3
    assert min(norms) > 1e-3
    assert row["train/gradient_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-5)
    assert row["train/gradient_norm_max"] == pytest.approx(max(norms), rel=1e-5)


def test_the_order_of_data_is_recorded(
    tiny: Config, prepared: Path, tmp_path: Path, whole: tuple[Fitted, Path]
) -> None:
    orders = [row["train/order"] for row in whole[0].history]
    assert len(set(orders)) == 4
    assert all(order == int(order) < 2**53 for order in orders)
    again = trained(tiny, prepared, tmp_path / "again", epochs=1, dropout=0.0).history
    assert again[0]["train/order"] == orders[0]
    other = trained(tiny, prepared, tmp_path / "other", epochs=1, seed=2).history
    assert other[0]["train/order"] != orders[0]
    rows = list(csv.DictReader((tmp_path / "again/order/epoch-0000.csv").open()))
    assert sorted(int(row["slice"]) for row in rows) == list(range(len(rows)))
    assert len({row["seed"] for row in rows}) == len(rows)
    assert [int(row["batch"]) for row in rows] == list(range(len(rows)))


def test_routers_are_measured_with_and_without_pictures(whole: tuple[Fitted, Path]) -> None:
    for row in whole[0].history:
        measures = {name: value for name, value in row.items() if name.startswith("router/")}
        # Two blocks of each of three stages, three routers each; queries choose nothing.
        assert len(measures) == 6 * 3 + 6 * 2
        assert all(0 < value <= 1 + 1e-6 for value in measures.values())
        assert "router/decoder.0.blocks.1/feed_forward/load" in measures


def test_figures_of_the_machine_are_told_and_no_part_of_the_history(
    tiny: Config, prepared: Path, tmp_path: Path
) -> None:
    told: list[Rows] = []
    fitted = trained(tiny, prepared, tmp_path, epochs=2, report=told.append)
    assert told[-1] == fitted.told
    for plain, row in zip(fitted.history, fitted.told, strict=True):
        figures = {name: value for name, value in row.items() if name not in plain}
        assert figures.keys() == {
            f"system/{name}" for name in ("images_per_second", "loader_wait_percent", "cpu_percent", "peak_memory_mb")
        }
        assert figures["system/images_per_second"] > 0
        assert 0 < figures["system/loader_wait_percent"] < 100
        assert figures["system/cpu_percent"] > 1
        assert 100 < figures["system/peak_memory_mb"] < 100_000


#: No epoch after the first is so much better.
STALLED = {"patience": 2, "min_delta": 100.0}


def test_a_training_that_gets_no_better_ends(
    tiny: Config, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"epochs": 5, "early_stopping": EarlyStoppingConfig(**STALLED)}
    fitted = trained(tiny, prepared, tmp_path / "a", **settings)
    assert [row["epoch"] for row in fitted.history] == [0, 1, 2]
    first = fitted.history[0]["val/slice_psnr"]
    said = f"t: stopped after epoch 2: val/slice_psnr no better than {first:.4g} by more than 100 for 2 epochs\n"
    assert said in capsys.readouterr().err

    def killed_at_the_end(rows: Rows) -> None:
        if len(rows) == 3:
            raise KilledError

    # Interrupted while it waits, and when all is done but said.
    assert run(tiny, prepared, tmp_path / "b", (2, 1), **settings) is None
    assert run(tiny, prepared, tmp_path / "b", report=killed_at_the_end, **settings) is None
    assert states(tmp_path / "b")[-1] == "epoch-0003-batch-000000.ckpt"
    assert trained(tiny, prepared, tmp_path / "b", **settings).history == fitted.history
    assert said in capsys.readouterr().err


def test_on_a_plateau_the_learning_rate_sinks(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    schedule = ScheduleConfig(name="plateau", gamma=0.5, warmup_steps=2, **STALLED)
    settings: dict[str, Any] = {"epochs": 4, "schedule": schedule, "learning_rate": 1e-3}
    fitted = trained(tiny, prepared, tmp_path / "a", **settings)
    rates = [row["train/learning_rate"] for row in fitted.history]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4])
    # After the first of two epochs without a gain.
    assert run(tiny, prepared, tmp_path / "b", (2, 0), **settings) is None
    assert trained(tiny, prepared, tmp_path / "b", **settings).history == fitted.history


def test_an_undefined_score_is_no_better_one() -> None:
    from condswin.training.stalling import Stop

    stop = Stop(EarlyStoppingConfig(patience=2), ("val/score", True))
    for score in (1.0, math.nan, math.nan):
        assert not stop.stopped
        stop._evaluate_stopping_criteria(torch.tensor(score))
    assert stop.stopped


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"early_stopping": EarlyStoppingConfig()}, r"train\.early_stopping: goes by a score of validation cases"),
        ({"schedule": ScheduleConfig(name="plateau")}, r"train\.schedule\.name: plateau: goes by a score"),
    ],
)
def test_what_goes_by_a_score_needs_validation_cases(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        require_validation(TrainConfig(**settings), validated=False)
    require_validation(TrainConfig(**settings), validated=True)
