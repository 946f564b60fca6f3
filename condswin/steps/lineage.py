"""Step: walk back from a registered model to what it was made of, and check each step of the way."""

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from condswin.config.root import Config
from condswin.errors import BadDataError, BadFileError, CondswinError
from condswin.files import MANIFEST, fingerprint, sha256
from condswin.manifest import GENERATED, Manifest
from condswin.networks.saving import WEIGHTS, ModelSpec, read_spec
from condswin.provenance import knows_commit
from condswin.registry.approval import decision_in
from condswin.registry.package import NETWORK, PACKAGE, find_registered, verified_package
from condswin.registry.signing import SIGNATURE, SIGNED_BY, TRUSTED_KEYS, checks_signatures, signer
from condswin.registry.tracking import connect, tracking_errors, tracking_uri
from condswin.versioned import contained, stored

Held = Literal["holds", "fails", "not recorded", "not checked"]


@dataclass
class Link:
    """A step on the way back.

    Attributes:
        name: What it is: `package`, `code`, ...
        depth: Steps between it and the version.
        text: What is recorded of it, in words.
        facts: The same for programs.
        held: What checking it found.
        why: Where it does not hold: what was found; else what was looked at.
    """

    name: str
    depth: int
    text: str
    facts: dict[str, str]
    held: Held = "not checked"
    why: str = ""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": self.name, "depth": self.depth, **self.facts, "held": self.held, "why": self.why}


@dataclass(frozen=True)
class _Found:
    """What the checks look at."""

    client: MlflowClient
    tags: Mapping[str, str]
    package: Path | None
    spec: ModelSpec | None
    prepared: Path
    remote: str

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.spec.provenance if self.spec else {}


def lineage(config: Config, model: str, *, prepared: Callable[[str], Path], check: bool = False) -> list[Link]:
    """What a registered version was made of, from the version back to the data.

    Args:
        config: Names the registry.
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        prepared: Where the working folder has the prepared data of a task.
        check: Look at every step: package and weights by their checksums and the signature, the training's run in
            MLflow, its commit in git, its parameters, and its data in the working folder, DVC's cache or remote.

    Returns:
        Links, the version first; each follows the one that it belongs to.

    Raises:
        TrackingError: MLflow cannot be reached.
        ModelUnavailableError: There is no such version.
    """
    entry = find_registered(model, config)
    tags = {key: str(value) for key, value in entry.tags.items()}
    uri = f"models:/{entry.name}/{entry.version}"
    with ExitStack() as stack, tracking_errors(tracking_uri(config)):
        client = connect(config)
        decision = decision_in(client, entry.name, str(entry.version), tags)
        links = list(_links(uri, entry.creation_timestamp, tags, decision))
        if not check:
            return links
        package, objection = None, ""
        try:
            package = stack.enter_context(verified_package(uri, config))
        except CondswinError as error:
            objection = str(error)
        spec = read_spec(package / NETWORK) if package else None
        found = _Found(client, tags, package, spec, prepared(tags.get("task", "")), config.cluster.dvc_remote)
        for link in links:
            if objection and link.name in ("package", "weights"):
                link.held, link.why = "fails", objection
            elif objection and link.name in ("libraries", "parameters"):
                link.why = "the package that has them does not hold"
            elif looked := _CHECKS.get(link.name):
                link.held, link.why = looked(found)
    return links


def require_whole(links: list[Link]) -> None:
    """Raises if a step that was checked does not hold.

    Raises:
        BadDataError: Names them.
    """
    broken = [link for link in links if link.held == "fails"]
    if broken:
        raise BadDataError(
            "\n".join([f"{len(broken)} of {len(links)} steps do not hold", *(f"{x.name}: {x.why}" for x in broken)])
        )


def _links(uri: str, created: int, tags: Mapping[str, str], record: Mapping[str, Any]) -> Iterator[Link]:
    def link(name: str, depth: int, text: str, *keys: str) -> Link:
        return Link(name, depth, text, {key: tags[key] for key in keys if key in tags})

    def short(key: str) -> str:
        return f"{tags[key][:12]}..." if key in tags else "not recorded"

    made = datetime.fromtimestamp(created / 1000, UTC).isoformat(timespec="seconds")
    yield link("version", 0, f"{uri}, registered {made}", "registered_by_commit")
    signed = f"signed by key {short(SIGNED_BY)}" if SIGNED_BY in tags else "not signed"
    yield link("package", 1, f"SHA-256 {short(PACKAGE)}, {signed}", PACKAGE, SIGNED_BY)
    yield link("weights", 2, f"SHA-256 {short('weights_sha256')}", "weights_sha256")
    decided = f"{record['outcome']} {record.get('decided_at', '')}" if record else "never judged"
    yield link("decision", 1, f"{decided}{f', by {who}' if (who := record.get('approved_by')) else ''}")
    hours = f", {tags['hours']} h on {tags.get('device', 'unknown')}" if "hours" in tags else ""
    run = f"run {tags['training_run']}" if "training_run" in tags else "run not recorded"
    text = f"{run}: {tags.get('variant')}, seed {tags.get('seed')}{hours}"
    yield link("training", 1, text, "training_run", "variant", "seed", "hours", "device")
    state = {"true": ", with changes", "false": ""}.get(tags.get("git_dirty", ""), ", state unknown")
    code = f"commit {short('git_commit')}{state}, SHA-256 {short('code_sha256')}"
    yield link("code", 2, code, "git_commit", "git_dirty", "code_sha256")
    known = json.loads(tags.get("libraries", "{}"))
    versions = ", ".join(f"{name} {version}" for name, version in known.items()) or "not recorded"
    yield link("libraries", 2, versions, "libraries")
    yield link("parameters", 2, f"SHA-256 {short('params_sha256')}", "params_sha256")
    for name, key in (("image", "image"), ("pipeline run", "pipeline_run")):
        if key in tags:
            yield link(name, 2, tags[key], key)
    origin = tags.get(GENERATED, "unknown")
    yield link("data", 2, f"SHA-256 {short('data_sha256')}, generated: {origin}", "data_sha256", GENERATED)
    yield link("prepared files", 3, f"MD5 {short('dvc_md5')} (DVC)", "dvc_md5")
    yield link("ingested files", 3, f"MD5 {short('source_md5')} (DVC)", "source_md5")


def _package(found: _Found) -> tuple[Held, str]:
    if found.package is None:
        return "fails", "no package"
    said, signed = found.tags.get(SIGNED_BY), (found.package / SIGNATURE).is_file()
    if said is None:
        return ("fails", f"there is a {SIGNATURE}, and no tag {SIGNED_BY}") if signed else ("holds", "checksum right")
    if not signed:
        return "fails", f"there is no {SIGNATURE}, and a tag {SIGNED_BY}"
    if not checks_signatures():
        return "holds", f"checksum right; {TRUSTED_KEYS} names no key to check the signature with"
    if (by := signer(found.package)) != said:
        return "fails", f"signed by key {str(by)[:12]}..., but the tag {SIGNED_BY} says {said[:12]}"
    return "holds", "checksum and signature right"


def _weights(found: _Found) -> tuple[Held, str]:
    if found.package is None or found.spec is None:
        return "fails", "no package"
    there = sha256(found.package / NETWORK / WEIGHTS)
    return _equal(there, {"description": found.spec.weights_sha256, "tag": found.tags.get("weights_sha256", "")})


def _training(found: _Found) -> tuple[Held, str]:
    run_id = found.tags.get("training_run")
    if run_id is None:
        return "not recorded", "MLflow had no run of it when it was registered"
    try:
        run = found.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return "fails", "MLflow has no such run (any more)"
    if run.info.lifecycle_stage != "active":
        return "fails", "the run was deleted in MLflow"
    keys = [key for key in ("params_sha256", "data_sha256", "weights_sha256") if key in run.data.tags]
    wrong = [key for key in keys if run.data.tags[key] != found.tags.get(key)]
    if wrong:
        return "fails", f"the run says otherwise: {', '.join(wrong)}"
    if "weights_sha256" not in keys:
        return "not recorded", "the run was cut off before it said which weights it left"
    return "holds", "the run says the same"


def _code(found: _Found) -> tuple[Held, str]:
    commit, code = found.tags.get("git_commit", "unknown"), found.provenance.get("code", {})
    if commit == "unknown":
        return "not recorded", "no commit was known where it was trained"
    if found.spec and (code.get("git_commit"), code.get("code_sha256")) != (commit, found.tags.get("code_sha256")):
        return "fails", "the package says otherwise"
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit) or not knows_commit(commit):
        return "fails", "git knows no such commit here; fetch it"
    if found.tags.get("git_dirty") == "true":
        return "fails", "files differed from that commit, so no commit has the code"
    return "holds", "git has the commit"


def _libraries(found: _Found) -> tuple[Held, str]:
    if "libraries" not in found.tags:
        return "not recorded", "the description of the network names none"
    said = found.provenance.get("code", {}).get("libraries")
    return ("holds", "the package says the same") if said == json.loads(found.tags["libraries"]) else (
        "fails", "the package says otherwise"
    )  # fmt: skip


def _parameters(found: _Found) -> tuple[Held, str]:
    if "parameters" not in found.provenance:
        return "not recorded", "the package has none"
    return _equal(fingerprint(found.provenance["parameters"]), {"tag": found.tags.get("params_sha256", "")})


def _data(found: _Found) -> tuple[Held, str]:
    wanted, task = found.tags.get("data_sha256", ""), found.tags.get("task", "")
    if found.provenance.get("data_sha256", wanted) != wanted:
        return "fails", "the package says that it was trained on other data"
    why = "the working folder has no prepared data"
    if (found.prepared / MANIFEST).is_file():
        try:
            manifest = Manifest.read(found.prepared, task)
            if manifest.fingerprint() == wanted:
                manifest.verify(found.prepared)
                return "holds", f"{found.prepared} has it, every file by its checksum"
            why = f"{found.prepared} has other data"
        except (BadFileError, BadDataError) as error:
            why = str(error).splitlines()[0]
    if "dvc_md5" not in found.tags:
        return "not recorded", f"{why}, and it was registered outside of DVC"
    kept = contained(found.tags["dvc_md5"], MANIFEST)
    if kept is None:
        return "fails", f"{why}, and DVC's cache has no manifest of it"
    try:
        with tempfile.TemporaryDirectory(prefix="condswin-lineage-") as temporary:
            (Path(temporary) / MANIFEST).write_bytes(kept)
            there = Manifest.read(Path(temporary), task).fingerprint()
    except (BadFileError, BadDataError):
        return "fails", f"{why}, and the manifest in DVC's cache is not readable"
    return ("holds", "DVC has its manifest") if there == wanted else ("fails", "what DVC has is other data")


def _files(key: str) -> Callable[[_Found], tuple[Held, str]]:
    def look(found: _Found) -> tuple[Held, str]:
        if key not in found.tags:
            return "not recorded", "it was registered outside of DVC"
        place, objection = stored(found.tags[key], found.remote)
        return ("fails", objection) if objection else ("holds", f"in {place}")

    return look


_CHECKS: Mapping[str, Callable[[_Found], tuple[Held, str]]] = {
    "package": _package,
    "weights": _weights,
    "training": _training,
    "code": _code,
    "libraries": _libraries,
    "parameters": _parameters,
    "data": _data,
    "prepared files": _files("dvc_md5"),
    "ingested files": _files("source_md5"),
}


def _equal(there: str, said: Mapping[str, str]) -> tuple[Held, str]:
    wrong = [f"the {who} says {value[:12] or 'nothing'}" for who, value in said.items() if value != there]
    return ("fails", f"{there[:12]}..., but {', '.join(wrong)}") if wrong else ("holds", "checksum right")
