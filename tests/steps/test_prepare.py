import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from condswin.config.names import TASKS, TaskName
from condswin.config.root import Config
from condswin.errors import BadDataError, BadFileError, ConfigError
from condswin.manifest import Manifest
from condswin.outputs import RECORD
from condswin.steps.demo_data import NOTE, demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare
from condswin.steps.train import train


def at(config: Config, task: TaskName, source: Path) -> Config:
    return config.model_copy(update={task: config.task(task).model_copy(update={"source": str(source)})})


@pytest.fixture(scope="module", params=TASKS)
def ingested(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Config) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    demo_data(at(tiny, request.param, folder / "raw"), request.param, out=folder / "raw")
    ingest(tiny, request.param, source=str(folder / "raw"), out=folder / request.param)
    return folder / request.param


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def test_again_does_nothing(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    first = prepare(tiny, task, ingested=ingested, out=tmp_path / "out")
    before = snapshot(tmp_path / "out")
    assert prepare(tiny, task, ingested=ingested, out=tmp_path / "out") == first
    assert snapshot(tmp_path / "out") == before


def test_damaged_or_lost_outputs_are_made_again(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    manifest = prepare(tiny, task, ingested=ingested, out=tmp_path / "out")
    assert manifest is not None
    first, second = (tmp_path / "out" / next(iter(case.files.values())).path for case in manifest.cases[:2])
    content = first.read_bytes()
    first.write_bytes(content[:100])
    second.unlink()
    assert prepare(tiny, task, ingested=ingested, out=tmp_path / "out") == manifest
    assert first.read_bytes() == content


def test_shards_make_what_one_run_makes(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    whole = prepare(tiny, task, ingested=ingested, out=tmp_path / "whole")
    results = [prepare(tiny, task, ingested=ingested, out=tmp_path / "parts", shard=(part, 3)) for part in range(3)]
    assert results == [None, None, whole]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shards", [3, 40])
def test_shards_of_several_folders_are_brought_together(
    shards: int, tiny: Config, ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there are more shards than cases: every file is that of one run, the manifest and the record too."""
    task = ingested.name
    whole = prepare(tiny, task, ingested=ingested, out=tmp_path / "whole")
    parts = [tmp_path / f"part-{number}" for number in range(shards)]
    for number, part in enumerate(parts):
        assert prepare(tiny, task, ingested=ingested, out=part, shard=(number, shards)) is None
        assert not (part / "manifest.json").exists()
    with monkeypatch.context() as nothing_left:
        nothing_left.setattr("condswin.steps.prepare._prepare_case", None)
        joined = prepare(tiny, task, ingested=ingested, out=tmp_path / "joined", prepared=parts)
    assert joined == whole
    assert joined.fingerprint() == whole.fingerprint()
    assert contents(tmp_path / "joined") == contents(tmp_path / "whole")


def test_what_a_shard_lacks_or_holds_damaged_is_prepared(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    whole = prepare(tiny, task, ingested=ingested, out=tmp_path / "whole")
    part = tmp_path / "part"
    prepare(tiny, task, ingested=ingested, out=part, shard=(0, 2))
    first = next(path for path in sorted(part.rglob("*.h5")) if path.is_file())
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(bytes(content))
    assert prepare(tiny, task, ingested=ingested, out=tmp_path / "out", prepared=[part]) == whole
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_other_parameters_make_other_data(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    name, change = {
        "reconstruction": ("undersample", {"accelerations": [8], "center_fractions": [0.04]}),
        "segmentation": ("prepare", {"windows": ((-100.0, 200.0),)}),
    }[task]
    section = getattr(tiny.task(task), name).model_copy(update=change)
    other = tiny.model_copy(update={task: tiny.task(task).model_copy(update={name: section})})
    first = prepare(tiny, task, ingested=ingested, out=tmp_path / "out")
    second = prepare(other, task, ingested=ingested, out=tmp_path / "out")
    assert first is not None
    assert second is not None
    assert first.fingerprint() != second.fingerprint()


@pytest.mark.parametrize("shard", [(3, 3), (-1, 2), (0, 0)])
def test_impossible_shards_are_refused(tiny: Config, ingested: Path, tmp_path: Path, shard: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"shard {shard[0]}/{shard[1]}"):
        prepare(tiny, ingested.name, ingested=ingested, out=tmp_path / "out", shard=shard)


def test_missing_inputs_are_named(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    with pytest.raises(BadFileError, match=r"manifest\.json"):
        prepare(tiny, task, ingested=tmp_path, out=tmp_path / "out")
    manifest = Manifest.read(ingested, task)
    (tmp_path / "copy").mkdir()
    manifest.write(tmp_path / "copy")
    with pytest.raises(BadDataError, match="missing"):
        prepare(tiny, task, ingested=tmp_path / "copy", out=tmp_path / "out")


def test_no_demo_data_where_the_parameters_name_a_source(tiny: Config, tmp_path: Path) -> None:
    assert demo_data(at(tiny, "segmentation", tmp_path / "real"), "segmentation", out=tmp_path / "demo") == 0
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {NOTE, RECORD}


def test_manifest_says_where_files_come_from(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    manifest = prepare(tiny, task, ingested=ingested, out=tmp_path / "out")
    assert manifest is not None
    sources = {case.name: case for case in Manifest.read(ingested, task).cases}
    for case in manifest.cases:
        source = sources[case.name]
        assert case.details["source_sha256"] == {role: file.sha256 for role, file in source.files.items()}
        assert {key: case.details[key] for key in source.details} == source.details
        if task == "reconstruction":
            assert case.details["true_acceleration"] == 1 or case.split != "train"
            assert case.details["true_acceleration"] > 2 or case.split == "train"


def test_a_changed_value_in_a_file_of_equal_size_is_noticed(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    manifest = prepare(tiny, task, ingested=ingested, out=tmp_path / "out")
    assert manifest is not None
    manifest.verify(tmp_path / "out")
    path = tmp_path / "out" / next(iter(manifest.cases[0].files.values())).path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BadDataError, match=rf"{path.name}: content differs from manifest\.json"):
        manifest.verify(tmp_path / "out")
    # The step that wrote it makes it again.
    assert prepare(tiny, task, ingested=ingested, out=tmp_path / "out") == manifest
    manifest.verify(tmp_path / "out")


def test_data_of_other_parameters_is_not_trained_on(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    prepare(tiny, task, ingested=ingested, out=tmp_path / "out")
    section = tiny.task(task)
    change = {"offset": 1} if task == "reconstruction" else {"neighbours": 1}
    part = getattr(section, section.preparation).model_copy(update=change)
    other = tiny.model_copy(update={task: section.model_copy(update={section.preparation: part})})
    arguments = {"prepared": tmp_path / "out", "checkpoints": tmp_path / "checkpoints", "out": tmp_path / "model"}
    with pytest.raises(BadDataError, match=rf"other parameters than now \({next(iter(change))}\).*prepare {task}"):
        train(other, task, "swin", **arguments)
    assert not (tmp_path / "model").exists()


def test_a_new_secret_and_new_rejections_reach_prepared_data(tiny: Config, ingested: Path, tmp_path: Path) -> None:
    task = ingested.name
    shutil.copytree(ingested, tmp_path / "in")
    source = Manifest.read(tmp_path / "in", task)
    first = prepare(tiny, task, ingested=tmp_path / "in", out=tmp_path / "out")
    assert first is not None
    case = source.cases[0]
    others = [replace(case, patient="another key"), *source.cases[1:]]
    replace(source, cases=others, rejected=[{"file": "bad", "reason": "damaged"}]).write(tmp_path / "in")
    path = tmp_path / "out" / first.cases[0].files[f"{case.name}.h5"].path
    before = path.stat().st_mtime_ns
    second = prepare(tiny, task, ingested=tmp_path / "in", out=tmp_path / "out")
    assert second is not None
    assert second.rejected == [{"file": "bad", "reason": "damaged"}]
    assert second.cases[0].patient == "another key"
    assert path.stat().st_mtime_ns > before
