"""Many processes at one registry at once, on PostgreSQL and S3 behind a server, and on a database file."""

import json

import pytest

from condswin.files import read_json
from condswin.registry.aliases import (
    CHALLENGER,
    CHAMPION,
    KEY,
    LAST_CHAMPION,
    PREVIOUS,
    PREVIOUS_CHAMPION,
    PROMOTED_AT,
    RECORD,
)
from condswin.registry.events import events
from condswin.steps.approve import reject
from tests.registry.toy import NAME, World, plain_tags
from tests.services.children import Child, context

pytest_plugins = ["tests.registry.fixtures", "tests.services.team"]
pytestmark = [pytest.mark.services, pytest.mark.usefixtures("few_files")]

#: Of the challengers, each better than the one before; the last one is better than all, and a person rejected it.
BIASES = [0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97]
#: Of two further networks, which five processes register each.
NEW = [0.3, 0.4]


@pytest.fixture(params=["database file", "server"])
def registry(request: pytest.FixtureRequest) -> World:
    world: World = request.getfixturevalue("team" if request.param == "server" else "world")
    return world


def own(world: World, name: str) -> World:
    """The same registry and data with a folder for one process."""
    folder = world.folder / name
    folder.mkdir()
    (folder / "prepared").symlink_to(world.prepared)
    return World(folder, world.config)


def test_ten_promoters_and_ten_registrars_at_once(registry: World, quick_smoke: None) -> None:
    """Who loses does as the line says; the best that may become champion does, each better than the one before."""
    registry.promote(registry.register(0.5))
    bias_of = {read_json(registry.register(bias))["version"]: bias for bias in BIASES}
    *allowed, rejected = bias_of
    reject(registry.config, "reconstruction", rejected, by="Jane", why="smooths tears")
    together = context().Barrier(len(allowed) + 10)
    promoters = {}
    for version, bias in bias_of.items():
        world = own(registry, f"promoter-{version}")
        (registry.folder / f"registered-{bias}.json").rename(world.folder / f"registered-{bias}.json")
        promoters[version] = Child("promote as told", world, together=together, bias=bias)
    registrars = [
        Child("register beside", own(registry, f"registrar-{bias}-{number}"), together=together, bias=bias)
        for number in range(5)
        for bias in NEW
    ]
    answers = {version: child.ended() for version, child in promoters.items()}
    registered = [child.ended() for child in registrars]

    assert all("answer" in each for each in [*answers.values(), *registered]), (answers, registered)
    best, client = allowed[-1], registry.client
    chain = [each for each in events(client, NAME) if each["event"] == "promoted"]
    champions = [each["version"] for each in chain]
    assert (champions[0], champions[-1]) == ("1", best)
    assert [each["previous"] for each in chain] == [None, *champions[:-1]]
    assert [bias_of[version] for version in champions[1:]] == sorted(bias_of[version] for version in champions[1:])
    outcomes = {version: answer["answer"][0] for version, answer in answers.items()}
    assert outcomes == {version: "promoted" if version in champions else "refused" for version in bias_of}
    lines = [line for answer in answers.values() for line in answer["answer"][1]]
    assert len(lines) >= len(allowed) - 1
    assert all("while version" in line and line.endswith("nothing was changed, promote again") for line in lines), lines
    for version in bias_of:
        tags = registry.tags(version)
        was_champion = version in champions
        assert ((PROMOTED_AT in tags), (PREVIOUS_CHAMPION in tags)) == (was_champion, was_champion)
        assert json.loads(tags.get(RECORD, '{"promoted": false}'))["promoted"] == was_champion

    agreed = [{registered[place]["answer"] for place in range(start, 10, 2)} for start in (0, 1)]
    assert [len(each) for each in agreed] == [1, 1], registered
    kept = agreed[0] | agreed[1]
    found = client.search_model_versions(f"name = '{NAME}'")
    assert {str(entry.version) for entry in found} == {"1", *bias_of, *kept}
    assert len({entry.tags[KEY] for entry in found}) == len(found) == 13
    aliases = registry.aliases()
    assert aliases.pop(CHALLENGER) in kept
    assert aliases == {CHAMPION: best, PREVIOUS: champions[-2]}
    assert plain_tags(client) == {LAST_CHAMPION: best}


def test_the_first_registrars_of_a_model_at_once(registry: World) -> None:
    together = context().Barrier(6)
    registrars = [
        Child("register beside", own(registry, f"registrar-{number}"), together=together, bias=0.5)
        for number in range(6)
    ]
    registered = [child.ended() for child in registrars]
    assert {each.get("answer") for each in registered} == {registry.aliases()[CHALLENGER]}, registered
    (entry,) = registry.client.search_model_versions(f"name = '{NAME}'")
    assert registered[0]["answer"] == str(entry.version)
