import json
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.entities import PagedList
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

from condswin.errors import BadFileError, GateError
from condswin.files import read_json, sha256
from condswin.outputs import WRITTEN_BY
from condswin.registry.aliases import CHALLENGER, KEY
from condswin.registry.lock import _Lease
from condswin.registry.package import PACKAGE, ModelUnavailableError, load_registered
from condswin.registry.signing import SIGNED_BY, SIGNING_KEY
from condswin.steps.register import SUPERSEDES, log_package, register
from tests.registry.test_signing import key_pair
from tests.registry.toy import NAME, World

pytest_plugins = ["tests.registry.fixtures"]

#: What changes a registry, and the package that a version is made of.
CHANGING = {
    *("create_registered_model", "create_model_version", "set_registered_model_alias"),
    *("set_model_version_tag", "set_registered_model_tag", "set_logged_model_tags", "update_model_version"),
}


def versions(world: World) -> list[str]:
    return sorted(str(version.version) for version in world.client.search_model_versions(f"name = '{NAME}'"))


def test_the_best_network_becomes_challenger_with_its_provenance(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDSWIN_GIT_COMMIT", "c" * 40)
    code = {"git_commit": "a" * 40, "git_dirty": "true", "code_sha256": "b" * 64, "libraries": {"torch": "2.13.0"}}
    model = world.network(0.5, code=code, parameters={"seed": 7}, generated="some")
    out = world.folder / "registered.json"
    origin = {"image": "registry/condswin@sha256:abc", "pipeline_run": "run-7"}
    result = register(world.config, "reconstruction", world.comparison(), model, out, **origin)

    assert (result.pop("already_registered"), result.pop("moved")) == (False, True)
    assert read_json(out) == {WRITTEN_BY: "condswin register", **result}
    assert (result["name"], result["version"], result["uri"]) == (NAME, "1", f"models:/{NAME}/1")
    assert world.aliases() == {CHALLENGER: "1"}
    tags = world.tags("1")
    assert len(tags.pop(PACKAGE)) == 64
    assert tags == {
        KEY: result["key"],
        "task": "reconstruction",
        "variant": "swin",
        "data_sha256": "d" * 64,
        "params_sha256": "p" * 64,
        "weights_sha256": sha256(model / "model.safetensors"),
        "seed": "7",
        "generated": "some",
        "git_commit": "a" * 40,  # of the training
        "git_dirty": "true",
        "code_sha256": "b" * 64,
        "libraries": '{"torch": "2.13.0"}',
        "registered_by_commit": "c" * 40,
        **origin,
        "test_psnr": "12.5",  # and no test_mse, which has no value
    }
    run = world.client.get_run(result["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"test_psnr": 12.5}


def test_registering_again_changes_nothing(world: World) -> None:
    comparison, model, out = world.comparison(), world.network(0.5), world.folder / "registered.json"
    first = register(world.config, "reconstruction", comparison, model, out)
    written = out.read_bytes()
    again = register(world.config, "reconstruction", comparison, model, out)
    assert (first.pop("already_registered"), again.pop("already_registered")) == (False, True)
    assert (first.pop("moved"), again.pop("moved")) == (True, False)
    assert first == again
    assert out.read_bytes() == written
    assert versions(world) == ["1"]
    # Other data, parameters or weights make another version.
    other = world.folder / "other.json"
    register(world.config, "reconstruction", world.comparison(data="e" * 64), model, other)
    register(world.config, "reconstruction", world.comparison(params_sha256="q" * 64), model, other)
    world.register(0.6)
    assert versions(world) == ["1", "2", "3", "4"]
    assert world.aliases() == {CHALLENGER: "4"}
    back = register(world.config, "reconstruction", comparison, model, out)
    assert (back["already_registered"], back["moved"]) == (True, True)
    assert world.aliases() == {CHALLENGER: "1"}


def test_the_version_is_found_again_after_a_commit_that_changed_no_training_code(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison, out = world.comparison(), world.folder / "registered.json"

    def version(registering: str, **code: Any) -> str:
        monkeypatch.setenv("CONDSWIN_GIT_COMMIT", registering)
        model = world.network(0.5, **({"code": code} if code else {}), parameters={"seed": 1})
        return str(register(world.config, "reconstruction", comparison, model, out)["version"])

    assert version("1" * 40, git_commit="a", git_dirty="false", code_sha256="x", libraries={"torch": "1"}) == "1"
    assert version("2" * 40, git_commit="a", git_dirty="false", code_sha256="x", libraries={"torch": "1"}) == "1"
    # Trained once more, to the same weights, by the same code at another commit.
    assert version("2" * 40, git_commit="b", git_dirty="true", code_sha256="x", libraries={"torch": "2"}) == "1"
    assert version("2" * 40, git_commit="b", git_dirty="true", code_sha256="y", libraries={"torch": "2"}) == "2"
    # By a condswin that did not say with which code.
    assert version("2" * 40) == "3"
    unknown = {"git_commit": "unknown", "git_dirty": "unknown", "code_sha256": "unknown"}
    assert unknown.items() <= world.tags("3").items()


def test_versions_without_a_checksum_of_their_files_are_registered_again(world: World) -> None:
    world.register(0.5)
    world.client.delete_model_version_tag(NAME, "1", PACKAGE)
    assert read_json(world.register(0.5))["version"] == "2"
    assert world.aliases() == {CHALLENGER: "2"}


def test_broken_versions_are_not_taken_for_registered(world: World) -> None:
    """Versions that failed to become ready, or whose files were wiped, are left alone and a new one is registered."""
    comparison, model, out = world.comparison(), world.network(0.5), world.folder / "registered.json"
    register(world.config, "reconstruction", comparison, model, out)
    with sqlite3.connect(world.database) as database:
        database.execute("update model_versions set status = 'FAILED_REGISTRATION'")
    database.close()
    assert register(world.config, "reconstruction", comparison, model, out)["version"] == "2"
    for description in (world.folder / "mlartifacts").rglob("artifacts/model"):
        shutil.rmtree(description)
    assert register(world.config, "reconstruction", comparison, model, out)["version"] == "3"
    weights = world.package_of("3") / "artifacts/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert register(world.config, "reconstruction", comparison, model, out)["version"] == "4"
    assert register(world.config, "reconstruction", comparison, model, out)["version"] == "4"
    assert world.aliases() == {CHALLENGER: "4"}


def test_a_run_that_died_before_the_version_was_made_leaves_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.register(0.5)
    assert not (world.folder / "registered-0.5.json").exists()
    assert versions(world) == []
    world.register(0.5)
    assert versions(world) == ["1"]


def test_version_and_model_are_described_though_the_run_that_made_them_died(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "update_model_version", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.register(0.5)
    assert not world.client.get_model_version(NAME, "1").description
    world.register(0.5)
    assert versions(world) == ["1"]
    described = world.client.get_model_version(NAME, "1").description
    assert described.startswith("### Intended use")
    assert "| psnr | 12.5 (11 to 14) |" in described
    assert "judged by psnr first" in world.client.get_registered_model(NAME).description
    (given,) = world.client.get_run(world.client.get_model_version(NAME, "1").run_id).inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("reconstruction", "d" * 36)


def test_two_processes_registering_the_same_agree_on_one_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison, model, out = world.comparison(), world.network(0.5), world.folder / "registered.json"
    with monkeypatch.context() as patch:
        # The other process finishes between this one's search and its registration.
        def late(config: Any, *arguments: Any) -> str:
            patch.undo()
            register(config, "reconstruction", comparison, model, world.folder / "others.json")
            return log_package(*arguments)

        patch.setattr("condswin.steps.register.log_package", lambda folder, *_: late(world.config, folder))
        result = register(world.config, "reconstruction", comparison, model, out)
    assert result["version"] == "1"
    assert versions(world) == ["1"]
    assert result["already_registered"]
    assert read_json(out) == read_json(world.folder / "others.json")


def test_a_version_that_another_process_made_meanwhile_must_be_signed_as_those_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private, _ = key_pair(world.folder, "ours")
    comparison, model, out = world.comparison(), world.network(0.5), world.folder / "registered.json"

    def late(*arguments: Any) -> Any:
        """Another process, which has no key, finishes between this one's search and its registration."""
        monkeypatch.setattr("condswin.steps.register.log_package", log_package)
        monkeypatch.delenv(SIGNING_KEY)
        register(world.config, "reconstruction", comparison, model, world.folder / "others.json")
        monkeypatch.setenv(SIGNING_KEY, str(private))
        return log_package(*arguments)

    monkeypatch.setenv(SIGNING_KEY, str(private))
    monkeypatch.setattr("condswin.steps.register.log_package", late)
    result = register(world.config, "reconstruction", comparison, model, out)
    assert (result["version"], result["already_registered"]) == ("2", False)
    assert (SIGNED_BY in world.tags("1"), SIGNED_BY in world.tags("2")) == (False, True)
    assert world.tags("2")[SUPERSEDES] == "1"
    assert "it is not signed (no model.sig)" in capsys.readouterr().err
    again = register(world.config, "reconstruction", comparison, model, out)
    assert (again["version"], again["already_registered"]) == ("2", True)


def test_a_version_is_made_by_one_request_under_the_lock_and_is_as_mlflow_would_make_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def write(self: _Lease, request: Callable[..., Any], *arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            for store in (SqlAlchemyStore, TrackingStore):
                for name in CHANGING & set(vars(store)):
                    patch.setattr(store, name, counted(getattr(store, name)))
            return request(*arguments)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            made.append(real.__name__)
            return real(*arguments, **named)

        return call

    monkeypatch.setattr(_Lease, "write", write)
    world.register(0.5)
    assert made == ["create_model_version", "set_registered_model_alias"]
    version = world.client.get_model_version(NAME, "1")
    alike = mlflow.register_model(version.source, NAME, tags=version.tags)
    facts = ("source", "run_id", "run_link", "status", "tags", "model_id")
    assert [getattr(version, fact) for fact in facts] == [
        getattr(world.client.get_model_version(NAME, alike.version), fact) for fact in facts
    ]
    linked = world.client.get_logged_model(version.source.removeprefix("models:/")).tags["mlflow.modelVersions"]
    assert json.loads(linked) == [{"name": NAME, "version": each.version} for each in (version, alike)]


@pytest.fixture
def managed(few_files: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Makes the registry one that finishes a version after so many looks at it, or fails to, and may search late."""
    told: dict[str, Any] = {"looks": 3, "failing": (), "found": True}
    looked: dict[str, int] = {}

    def as_told(version: ModelVersion) -> ModelVersion:
        version._status = "PENDING_REGISTRATION"
        if looked.get(str(version.version), 0) >= told["looks"]:
            version._status = "READY"
        if version._status == "READY" and str(version.version) in told["failing"]:
            version._status, version._status_message = "FAILED_REGISTRATION", "no space\nleft"
        return version

    create, get, search = (
        getattr(SqlAlchemyStore, name)
        for name in ("create_model_version", "get_model_version", "search_model_versions")
    )

    def look(store: SqlAlchemyStore, name: str, version: str) -> ModelVersion:
        looked[str(version)] = looked.get(str(version), 0) + 1
        return as_told(get(store, name, version))

    def find(store: SqlAlchemyStore, *arguments: Any, **named: Any) -> Any:
        found = search(store, *arguments, **named)
        return PagedList([as_told(each) for each in found if told["found"]], found.token)

    def make(store: SqlAlchemyStore, *arguments: Any, **named: Any) -> ModelVersion:
        return as_told(create(store, *arguments, **named))

    monkeypatch.setattr(SqlAlchemyStore, "create_model_version", make)
    monkeypatch.setattr(SqlAlchemyStore, "get_model_version", look)
    monkeypatch.setattr(SqlAlchemyStore, "search_model_versions", find)
    monkeypatch.setattr("condswin.registry.versions.LOOK_EVERY", 0.0)
    return told


@pytest.mark.parametrize("found", [True, False])
def test_a_version_that_a_managed_registry_makes_slowly_is_waited_for(
    found: bool, world: World, managed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    managed["found"] = found  # some list a version a while after it was made
    result = read_json(world.register(0.5))
    said = capsys.readouterr().err
    assert said.count(f"{NAME}: waiting until MLflow has finished version 1 (PENDING_REGISTRATION), 300 s at most") == 1
    assert (result["version"], world.aliases()) == ("1", {CHALLENGER: "1"})
    assert world.client.get_model_version(NAME, "1").status == "READY"
    managed["found"] = True
    world.register(0.5)
    assert versions(world) == ["1"]


def test_a_version_that_another_run_left_unfinished_is_waited_for_and_not_made_twice(
    world: World, managed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    managed["looks"] = 10**9
    monkeypatch.setattr("condswin.registry.versions.READY_WITHIN", 0.05)
    for _ in range(2):
        with pytest.raises(GateError, match=r"has not finished version 1 within 0 s .*; register again to") as told:
            world.register(0.5)
        assert "\n" not in str(told.value)
        assert world.aliases() == {}
        with pytest.raises(ModelUnavailableError, match=r"has not finished version 1 \(PENDING_REGISTRATION\)"):
            load_registered(f"models:/{NAME}/1", world.config)
    managed["looks"] = 3
    assert read_json(world.register(0.5))["version"] == "1"
    assert (versions(world), world.aliases()) == (["1"], {CHALLENGER: "1"})


def test_a_version_that_a_managed_registry_fails_to_make_is_said_in_a_line_and_made_anew(
    world: World, managed: dict[str, Any]
) -> None:
    managed["failing"] = ("1",)
    failed = rf"{NAME}: MLflow could not finish version 1 \(FAILED_REGISTRATION: no space\\nleft\); register again"
    with pytest.raises(GateError, match=failed):
        world.register(0.5)
    assert world.aliases() == {}
    assert read_json(world.register(0.5))["version"] == "2"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "segmentation"}, "compares networks for segmentation, expected reconstruction"),
        ({"best": "conditional-light"}, "no test results of its best variant 'conditional-light'"),
        ({"best": None}, "'best' is missing or no text"),
        ({"data_sha256": 3}, "'data_sha256' is missing or no text"),
        ({"weights_sha256": None}, "'weights_sha256' is missing or no text"),
        ({"weights_sha256": "w" * 64}, "has the scores of other weights than .*; evaluate and compare again"),
        ({"variants": []}, "no test results"),
        ({"variants": {"swin": {"val": {}}}}, "no test results"),
    ],
)
def test_bad_comparisons_are_named(changes: dict[str, Any], reason: str, world: World) -> None:
    comparison, out = world.comparison(**changes), world.folder / "registered.json"
    with pytest.raises(BadFileError, match=reason) as caught:
        register(world.config, "reconstruction", comparison, world.network(0.5), out)
    assert caught.value.path == comparison
    assert not out.exists()


def test_networks_that_do_not_fit_are_not_registered(world: World) -> None:
    model, out = world.network(0.5), world.folder / "registered.json"
    weights, description = model / "model.safetensors", model / "model.json"
    whole = description.read_text()
    description.write_text(json.dumps({**json.loads(whole), "task": "segmentation"}))
    with pytest.raises(BadFileError, match="describes segmentation/swin, expected reconstruction/swin"):
        register(world.config, "reconstruction", world.comparison(), model, out)
    description.write_text(whole)
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(BadFileError, match="checksum differs"):
        register(world.config, "reconstruction", world.comparison(), model, out)
    assert not out.exists()
    assert world.client.search_registered_models() == []
