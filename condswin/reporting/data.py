"""What data a report is of, in sentences."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from condswin import layout
from condswin.config.names import SPLITS
from condswin.manifest import Manifest
from condswin.networks.presets import NETWORKS
from condswin.networks.saving import ModelSpec
from condswin.plain import plain
from condswin.provenance import git_state
from condswin.tasks.facts import Facts

_ORIGIN = {
    "all": "Generated {}data, of no real patient",
    "some": "Real {}data, and generated data among it",
    "none": "Real {}data",
    "unknown": "{}data of unknown origin",
}
_CAVEATS = {
    "all": "on generated data: it says nothing of patients",
    "some": "on data of which some is generated",
    "unknown": "on data of unknown origin",
}


def data_line(
    manifest: Manifest, facts: Facts, source: str, provenance: Mapping[str, Any], *, decided: str = "", image: str = ""
) -> str:
    """What data this is: generated or real, from where, how much of it, and by which code it was learned from.

    Args:
        manifest: Of the prepared data.
        facts: The task's.
        source: Where it came from.
        provenance: Of the network, as its description has it; empty for a reference method.
        decided: When the gate decided, ISO 8601; empty if it has not.
        image: Container image of the training; empty outside of containers.
    """
    code, data = provenance.get("code", {}), manifest.fingerprint()
    made = str(code.get("git_commit", "unknown"))[:12]
    changed = " with uncommitted changes" if code.get("git_dirty") == "true" else ""
    origin = _ORIGIN[manifest.generated("train", "val", "test")].format(f"{facts.modality} ".lstrip())
    learned = str(provenance.get("data_sha256", "unknown"))
    # Another network's data may be anybody's.
    other = "" if learned == data else f" on {'unknown' if learned == 'unknown' else 'other'} data"
    trained = f", trained by commit {made}{changed}{other}" if provenance else ""
    return (
        f"{origin}: {plain(source, 80)}. {_counted(manifest)} Data {data[:12]}{trained}"
        + (f" in image {plain(image, 80)}" if image else "")
        + (f"; decided {decided[:10]}" if decided else "")
        + "."
    )


def caveat(generated: str) -> str:
    """What a verdict on test cases is worth, as `Manifest.generated` says of them; empty if they are real."""
    return _CAVEATS.get(generated, "")


def data_facts(manifest: Manifest, facts: Facts, source: str, described: Mapping[str, str]) -> dict[str, str]:
    """What is known of the data, by name.

    Args:
        manifest: Of the prepared data.
        facts: The task's.
        source: Where it came from, as the parameters say.
        described: What the task knows, as `Judging.describe` gives it.
    """
    demo = Path(source) == layout.demo(facts.name) and manifest.generated(*SPLITS) == "all"
    found = {"generated": facts.demo if demo else "", **described}
    return {name: text for name, text in found.items() if text}


def source_name(source: str) -> str:
    """Where data came from, without the folders of this machine."""
    return Path(source).name if Path(source).is_absolute() else source


def method_facts(methods: Iterable[str], specs: Mapping[str, ModelSpec], facts: Facts) -> dict[str, str]:
    """What methods do, by name; of networks also their size and what differs from it.

    Args:
        methods: Of the page.
        specs: Descriptions of the networks, by variant.
        facts: The task's.
    """
    found = {}
    for method in methods:
        spec = specs.get(method)
        if spec is None:
            found[method] = facts.methods.get(method, "")
        else:
            changed = "".join(f", {name} {value}" for name, value in spec.overrides.items())
            found[method] = f"{NETWORKS[spec.network].says} Preset {spec.preset}{changed}."
    return {method: text for method, text in found.items() if text}


def patient_numbers(patients: Mapping[str, str]) -> dict[str, int]:
    """A number of the patient by case; they count from 1 and are of this page alone.

    Args:
        patients: Key of the person by test case, as `Scores` has it.
    """
    numbers = {key: number for number, key in enumerate(sorted({*patients.values()}), start=1)}
    return {case: numbers[key] for case, key in patients.items()}


def people(generated: str) -> str:
    """What the persons of the test cases are called."""
    return "generated people" if generated == "all" else "patients"


def provenance(comparison: Mapping[str, Any], spec: ModelSpec | None, decided: str, image: str) -> dict[str, str]:
    """Where a report's networks, data and the page itself come from, by name; what is not recorded is left out.

    Args:
        comparison: As `answers` takes it.
        spec: Of the best network; None for a reference method.
        decided: When the gate decided; empty if it has not.
        image: Container image of the training; empty outside of containers.
    """
    page = git_state()
    found = {
        "registered as": comparison.get("registered", ""),
        "this page": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, by commit {page['git_commit']}, "
        f"uncommitted changes: {page['git_dirty']}",
        "made again by": "make repro" if "chosen_on" in comparison and not image else "",
        "data (SHA-256 of the prepared cases)": comparison["data_sha256"],
        "parameters of data, training and variants (SHA-256)": comparison["params_sha256"],
        "weights of the best network (SHA-256)": comparison["weights_sha256"],
        "decided at": decided,
        "image": image,
    }
    if spec:
        code: dict[str, Any] = spec.provenance.get("code", {})
        found |= {
            "best network": f"{spec.variant}: {spec.network}, preset {spec.preset}, {dict(spec.overrides)}",
            "trained by commit": f"{code.get('git_commit', 'unknown')}, uncommitted changes: "
            f"{code.get('git_dirty', 'unknown')}",
            "libraries": ", ".join(f"{library} {version}" for library, version in code.get("libraries", {}).items()),
        }
    return {name: value for name, value in found.items() if value}


def _counted(manifest: Manifest) -> str:
    """Cases and people of each split, and whether a person is in several."""
    groups = {split: {case.patient for case in manifest.cases if case.split == split} for split in SPLITS}
    cases, names = manifest.counts(), dict(zip(SPLITS, ("training", "validation", "test"), strict=True))
    who = people(manifest.generated(*SPLITS))
    told = ", ".join(f"{cases[split]} {names[split]} cases ({len(groups[split])} {who})" for split in SPLITS)
    several = sum(map(len, groups.values())) - len(set().union(*groups.values()))
    apart = "no person is in two splits" if not several else f"{several} people are in two splits"
    return f"{told}; {apart}."
