import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from condswin.errors import BadDataError
from condswin.files import fingerprint, write_json
from condswin.manifest import Manifest
from condswin.registry.training_run import training_run
from condswin.reporting.text import print_lineage
from condswin.steps.lineage import Link, lineage, require_whole
from condswin.steps.register import Evidence, register
from tests.registry.toy import NAME, World, make_prepared

pytest_plugins = ["tests.registry.fixtures"]

URI = f"models:/{NAME}@challenger"
PARAMETERS = {"seed": 7, "train": {}}


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True)


@pytest.fixture
def story(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A working folder under git and DVC, with a training, its network registered, and its data in DVC's cache."""
    folder = world.folder
    monkeypatch.chdir(folder)
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "x")
    make_prepared(Path("data"))
    make_prepared(Path("raw"), cases=3)
    with Repo.init(no_scm=True) as repo:
        outs = [out for stage in repo.add(["data", "raw"]) for out in stage.outs]
        entries = [{"path": out.def_path, "md5": out.hash_info.value} for out in outs]
    write_json(Path("dvc.lock"), {"stages": {"prepare": {"outs": entries}}})
    data = Manifest.read(Path("data"), "reconstruction").fingerprint()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    code = {"git_commit": commit, "git_dirty": "false", "code_sha256": "b" * 64, "libraries": {"torch": "2.13.0"}}
    facts = {"data_sha256": data, "params_sha256": fingerprint(PARAMETERS)}
    model = world.network(0.5, code=code, parameters=PARAMETERS, generated="none", **facts)
    comparison = world.comparison(**facts)
    weights = json.loads(comparison.read_text())["weights_sha256"]
    tags = {"step": "train", **facts}
    with training_run(world.config, "train", tags=tags, parameters={}, folder=folder / "checkpoints" / "a") as run:
        run.finish([{"epoch": 0, "train/loss": 1.0}], {"weights_sha256": weights, "device": "cuda (NVIDIA H100)"})
    evidence = Evidence(folder / "none", Path("data"), Path("raw"), folder / "none")
    register(world.config, "reconstruction", comparison, model, folder / "r.json", evidence=evidence)
    return world


def walked(world: World, prepared: Path = Path("data")) -> dict[str, Link]:
    return {link.name: link for link in lineage(world.config, URI, prepared=lambda _: prepared, check=True)}


def test_every_step_back_to_the_data_is_checked(story: World, capsys: pytest.CaptureFixture[str]) -> None:
    tags = story.tags("1")
    assert (tags["seed"], tags["device"], tags["generated"]) == ("7", "cuda (NVIDIA H100)", "none")
    assert float(tags["hours"]) < 0.1
    links = walked(story)
    assert {name: link.held for name, link in links.items()} == {
        "version": "not checked",
        "package": "holds",
        "weights": "holds",
        "decision": "not checked",
        **dict.fromkeys(("training", "code", "libraries", "parameters"), "holds"),
        **dict.fromkeys(("data", "prepared files", "ingested files"), "holds"),
    }
    require_whole(list(links.values()))
    # The working folder may have gone on to other data.
    elsewhere = walked(story, Path("raw"))["data"]
    assert (elsewhere.held, elsewhere.why) == ("holds", "DVC has its manifest")
    print_lineage([link.record() | {"text": link.text} for link in links.values()])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"version: models:/{NAME}/1, registered 2")
    assert lines[1].startswith("├─ package: SHA-256 ")
    assert lines[2].startswith("│  └─ weights: ")
    assert lines[4].startswith("└─ training: run ")
    assert lines[-3].startswith("   └─ data: ")
    assert lines[-1].startswith("      └─ ingested files: ")
    assert lines[-1].endswith("[holds: in DVC's cache]")


def lose_commit(world: World) -> None:
    world.client.set_model_version_tag(NAME, "1", "git_commit", "f" * 40)


def flip(world: World) -> None:
    weights = world.weights_of("1")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def delete_run(world: World) -> None:
    world.client.delete_run(world.tags("1")["training_run"])


def cached() -> list[Path]:
    """Arrays in DVC's cache, all of them of the prepared data."""
    files = sorted(path for path in Path(".dvc/cache/files").rglob("*") if path.is_file())
    arrays = [path for path in files if path.read_bytes().startswith(b"\x93NUMPY")]
    for path in arrays:
        path.chmod(0o600)
    return arrays


def empty_cache(world: World) -> None:
    for path in cached():
        path.unlink()


def damage_cache(world: World) -> None:
    cached()[0].write_bytes(b"damaged")


def other_parameters(world: World) -> None:
    world.client.set_model_version_tag(NAME, "1", "params_sha256", "e" * 64)


def other_data(world: World) -> None:
    world.client.set_model_version_tag(NAME, "1", "data_sha256", "e" * 64)


DAMAGED, LACKING = "is damaged in DVC's cache", "not in DVC's cache, and there is no remote"


@pytest.mark.parametrize(
    ("spoils", "broken"),
    [
        (
            [lose_commit, delete_run, damage_cache],
            {"code": "the package says otherwise", "training": "was deleted", "prepared files": DAMAGED},
        ),
        (
            [flip, empty_cache],
            {"package": "not those that", "weights": "not those", "prepared files": LACKING, "ingested files": LACKING},
        ),
        (
            [other_parameters, other_data],
            {
                "parameters": "but the tag says eeeeeeeeeeee",
                "data": "trained on other data",
                "training": "the run says otherwise: params_sha256, data_sha256",
            },
        ),
    ],
)
def test_what_does_not_hold_is_named(
    spoils: list[Callable[[World], None]], broken: dict[str, str], story: World
) -> None:
    for spoil in spoils:
        spoil(story)
    links = walked(story)
    failed = {name: link.why for name, link in links.items() if link.held == "fails"}
    assert set(failed) - {"ingested files"} == set(broken) - {"ingested files"}
    assert [name for name in failed if broken.get(name, DAMAGED) not in failed[name]] == []
    with pytest.raises(BadDataError, match=f"{len(failed)} of 11 steps do not hold\n"):
        require_whole(list(links.values()))


def test_a_version_that_was_registered_elsewhere_says_what_is_not_recorded(world: World) -> None:
    """As by a pipeline of Kubeflow's: no DVC, no git."""
    world.register(0.5)
    links = walked(world, world.folder / "none")
    assert {name for name, link in links.items() if link.held == "not recorded"} == {
        *("training", "code", "libraries", "parameters", "data", "prepared files", "ingested files"),
    }
    assert links["data"].why == "the working folder has no prepared data, and it was registered outside of DVC"
    require_whole(list(links.values()))
    unchecked = lineage(world.config, URI, prepared=Path)
    assert {link.held for link in unchecked} == {"not checked"}


def test_what_a_run_does_not_say_and_what_nobody_can_read_is_called_so(
    story: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.client.delete_tag(story.tags("1")["training_run"], "weights_sha256")
    monkeypatch.setattr("condswin.steps.lineage.contained", lambda *_: b"{")
    links = walked(story, Path("raw"))
    assert links["training"].held == "not recorded"
    assert links["training"].why == "the run was cut off before it said which weights it left"
    assert (links["data"].held, links["data"].why) == (
        "fails",
        "raw has other data, and the manifest in DVC's cache is not readable",
    )
