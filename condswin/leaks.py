"""Whether cases that a network is judged by are among those that it was trained on, or of the same people."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from condswin.config.names import Split
from condswin.errors import BadDataError
from condswin.manifest import TRAINED_ON, Manifest
from condswin.networks.saving import ModelSpec

# Names that a message has at most.
_SHOWN = 10


class Known(NamedTuple):
    """What a network's description says of cases.

    Attributes:
        cases: Names of those that it was trained on, or that are of people whose scans it was trained on.
        told: It says of every training, its own and those that it started from, what that had. Else there may be more.
    """

    cases: list[str]
    told: bool


def trained_on(spec: ModelSpec, manifest: Manifest, split: Split) -> Known:
    """Cases of a split that a network was trained on.

    Validation cases of a training chose its weights; so no test case may be one of them.

    Args:
        spec: Of the network.
        manifest: Of the cases that it is judged by.
        split: Which of them.
    """
    trainings = [each.get(TRAINED_ON) for each in _trainings(spec.provenance)]
    told = [training for training in trainings if training is not None]
    counted = ("train", "val") if split == "test" else ("train",)
    keys = {key for training in told for part in counted for key in training[part]}
    found = [case.name for case in manifest.cases if case.split == split and case.known_by() & keys]
    return Known(found, told=len(told) == len(trainings))


def refuse_trained_on(spec: ModelSpec, manifest: Manifest, prepared: Path, *splits: Split) -> bool:
    """Raises if a network was trained on cases that it is judged by; else whether it says what it was trained on.

    Raises:
        BadDataError: It was. Names them.
    """
    told = True
    for split in splits:
        cases, known = trained_on(spec, manifest, split)
        told &= known
        if cases:
            more = f" and {len(cases) - _SHOWN} more" if len(cases) > _SHOWN else ""
            raise BadDataError(
                f"{prepared}: {spec.variant} was trained on {len(cases)} of {manifest.counts()[split]} {split} cases, "
                f"or on scans of the same people ({', '.join(cases[:_SHOWN])}{more}), so its scores there mean "
                "nothing; leave these out, train again on this split, or keep held-out cases in folders of their own "
                f"({spec.task}.ingest.folders); if identifiers are placeholders, set {spec.task}.ingest.split_by: file"
            )
    return told


def _trainings(provenance: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What is known of a network's training, and of those that it started from."""
    yield provenance
    if "initial" in provenance:
        yield from _trainings(provenance["initial"])
