from pathlib import Path

import pytest

from condswin.files import read_json, write_json
from condswin.registry.cards import CARD, CARD_SHA256, fetch_card, keep_card
from condswin.registry.package import ModelAlteredError
from tests.registry.toy import World

pytest_plugins = ["tests.registry.fixtures"]


def test_a_card_comes_back_as_it_was_kept_without_names_or_not_at_all(world: World) -> None:
    run_id = str(read_json(world.register(0.5))["run_id"])
    card, back = world.folder / "card", world.folder / "back"
    assert not fetch_card(world.config, "reconstruction", "1", back)
    write_json(card / CARD, {"cases": 3, "duplicates": [["Jane", "Jane again"]]})
    keep_card(world.config, run_id, card)
    write_json(card / CARD, {"cases": 4, "duplicates": []})
    keep_card(world.config, run_id, card)  # it has one
    assert fetch_card(world.config, "reconstruction", "1", back)
    assert read_json(back / CARD) == {"cases": 3, "duplicates": []}
    assert [path.name for path in back.iterdir()] == [CARD]

    (kept,) = Path(world.folder / "mlartifacts").rglob(f"data-card/{CARD}")
    kept.write_text(kept.read_text().replace("3", "5"))
    with pytest.raises(
        ModelAlteredError, match=f"condswin-reconstruction/1: its {CARD} is not the one .*{CARD_SHA256}"
    ):
        fetch_card(world.config, "reconstruction", "1", world.folder / "altered")
    assert not (world.folder / "altered" / CARD).exists()
    world.client.delete_tag(run_id, CARD_SHA256)  # as of a card that was kept without one
    with pytest.raises(ModelAlteredError):
        fetch_card(world.config, "reconstruction", "1", back)
    keep_card(world.config, run_id, card)
    assert fetch_card(world.config, "reconstruction", "1", back)
    assert read_json(back / CARD)["cases"] == 4


def test_a_version_whose_run_was_removed_has_no_card(world: World) -> None:
    run_id, card = str(read_json(world.register(0.5))["run_id"]), world.folder / "card"
    write_json(card / CARD, {"cases": 3, "duplicates": []})
    keep_card(world.config, run_id, card)
    world.client.delete_run(run_id)
    world.client._tracking_client.store._hard_delete_run(run_id)  # as `mlflow gc` does
    keep_card(world.config, run_id, card)
    assert not fetch_card(world.config, "reconstruction", "1", world.folder / "back")
