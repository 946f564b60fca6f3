"""Files that ingestion leaves where they are."""

import json
import shutil
from pathlib import Path

import pytest

from condswin import kubeflow
from condswin.config.names import OWN, TaskName
from condswin.config.parts import part
from condswin.config.root import Config
from condswin.errors import BadDataError, ConfigError, OutputError
from condswin.manifest import Manifest
from condswin.outputs import RECORD
from condswin.steps.data_card import data_card
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import SPLIT_FILE, ingest
from condswin.steps.prepare import prepare


def with_ingest(config: Config, task: TaskName, **settings: object) -> Config:
    policy = config.task(task).ingest.model_copy(update=settings)
    return config.model_copy(update={task: config.task(task).model_copy(update={"ingest": policy})})


@pytest.fixture(scope="module", params=list(OWN))
def generated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Config) -> Path:
    raw: Path = tmp_path_factory.mktemp("originals") / request.param
    section = tiny.task(request.param).model_copy(update={"source": str(raw)})
    demo_data(tiny.model_copy(update={request.param: section}), request.param, out=raw)
    return raw


@pytest.fixture
def source(generated: Path, tmp_path: Path) -> Path:
    """A project's folder with raw files below the task's name."""
    shutil.copytree(generated, tmp_path / "project" / generated.name)
    return tmp_path / "project" / generated.name


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {
        str(path.relative_to(folder)): (at.st_ino, at.st_mode, at.st_mtime_ns, at.st_nlink, path.read_bytes())
        for path, at in found.items()
    }


def test_later_steps_read_them_and_find_what_they_find_in_copies(tiny: Config, source: Path, tmp_path: Path) -> None:
    task = source.name
    for path in source.rglob("*.*"):
        path.chmod(0o440)
    before = state(source)
    config = with_ingest(tiny, task, copy=False)
    left = ingest(config, task, source=str(source), out=tmp_path / "left")
    # All that DVC will cache.
    assert {path.name for path in (tmp_path / "left").rglob("*")} == {"manifest.json", SPLIT_FILE, RECORD}
    copied = ingest(tiny, task, source=str(source), out=tmp_path / "copied")
    assert left.fingerprint() == copied.fingerprint()
    assert left.counts() == copied.counts()
    prepared = [
        prepare(tiny, task, ingested=tmp_path / name, out=tmp_path / f"{name}-p") for name in ("left", "copied")
    ]
    assert prepared[0] is not None
    assert prepared[0] == prepared[1]
    cards = [data_card(tiny, task, ingested=tmp_path / name, out=tmp_path / f"{name}-c") for name in ("left", "copied")]
    assert cards[0] == cards[1]
    assert state(source) == before


def test_one_that_changed_is_named(tiny: Config, source: Path, tmp_path: Path) -> None:
    task = source.name
    ingest(with_ingest(tiny, task, copy=False), task, source=str(source), out=tmp_path / "out")
    changed = next(path for path in sorted(source.rglob("*")) if path.is_file() and path.name != RECORD)
    content = changed.read_bytes()
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BadDataError, match=rf"{changed.name}: content differs from manifest\.json") as caught:
        prepare(tiny, task, ingested=tmp_path / "out", out=tmp_path / "prepared")
    assert str(caught.value).count("differs") == 1
    assert not (tmp_path / "prepared").exists()


def test_a_clone_without_them_says_what_it_lacks_and_where_it_was(tiny: Config, source: Path, tmp_path: Path) -> None:
    task = source.name
    manifest = ingest(with_ingest(tiny, task, copy=False), task, source=str(source), out=tmp_path / "out")
    paths = [file.path for case in manifest.cases for file in case.files.values()]
    (source / paths[0]).unlink()
    with pytest.raises(BadDataError) as caught:
        prepare(tiny, task, ingested=tmp_path / "out", out=tmp_path / "prepared")
    assert f"1 of {len(paths)} are not in {source} ({paths[0]})" in str(caught.value)
    source.rename(tmp_path / "gone")
    with pytest.raises(BadDataError) as caught:
        prepare(tiny, task, ingested=tmp_path / "out", out=tmp_path / "prepared")
    assert f"{len(paths)} of {len(paths)} are not in {source} ({paths[0]}, ...)" in str(caught.value)
    assert f"condswin ingest {task}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("relative", [True, False])
def test_a_source_in_the_project_moves_with_it(
    tiny: Config, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    task, project = source.name, source.parent
    # Large folders are often links to another disk.
    (tmp_path / "disk").mkdir()
    (project / "data").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(project)
    given = task if relative else str(source)
    ingest(with_ingest(tiny, task, copy=False), task, source=given, out=Path("data/ingested"))
    assert Manifest.read(Path("data/ingested"), task).root(Path("data/ingested")) == source
    assert prepare(tiny, task, ingested=Path("data/ingested"), out=Path("data/prepared")) is not None
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tmp_path / "disk/ingested", tmp_path / "clone/a/ingested")
    (tmp_path / "clone/project").mkdir()
    source.rename(tmp_path / "clone/project" / task)
    clone = tmp_path / "clone/a/ingested"
    if relative:
        assert prepare(tiny, task, ingested=clone, out=tmp_path / "clone/prepared") is not None
    else:
        with pytest.raises(BadDataError, match="were not copied"):
            prepare(tiny, task, ingested=clone, out=tmp_path / "clone/prepared")


def test_copies_go_when_they_are_no_longer_wanted_and_come_back(tiny: Config, source: Path, tmp_path: Path) -> None:
    task, out = source.name, tmp_path / "out"
    first = ingest(tiny, task, source=str(source), out=out)
    copies = [out / file.path for case in first.cases for file in case.files.values()]
    ingest(with_ingest(tiny, task, copy=False), task, source=str(source), out=out)
    assert not any(path.exists() for path in copies)
    assert ingest(tiny, task, source=str(source), out=out) == first
    assert all(path.is_file() for path in copies)


def test_prepared_files_are_not_written_among_them(tiny: Config, source: Path, tmp_path: Path) -> None:
    task = source.name
    ingest(with_ingest(tiny, task, copy=False), task, source=str(source), out=tmp_path / "out")
    for place in (source, source.parent):
        with pytest.raises(OutputError, match="the input"):
            prepare(tiny, task, ingested=tmp_path / "out", out=place, overwrite=True)


@pytest.mark.parametrize("task", OWN)
def test_what_is_fetched_or_handed_on_to_pods_is_copied(tiny: Config, tmp_path: Path, task: TaskName) -> None:
    config = with_ingest(tiny, task, copy=False)
    with pytest.raises(ConfigError, match=rf"{task}\.ingest\.copy: false .* s3://bucket/a are fetched"):
        ingest(config, task, source="s3://bucket/a", out=tmp_path / "out")
    given = json.dumps(part(config, "ingest", task))
    told = kubeflow.ingest(given, task, "", "", str(tmp_path / "out"), str(tmp_path / "md5"))
    assert told.startswith(f"ingest {task}: {task}.ingest.copy: false, but pods hand on copies")
    assert [path.name for path in tmp_path.iterdir()] == ["md5"]
