"""What software a package was tried out with, as a CycloneDX document."""

from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


@cache
def sbom(names: tuple[str, ...]) -> dict[str, Any]:
    """The installed distributions that some need, themselves among them, in CycloneDX's form 1.5.

    Args:
        names: Distributions that are imported. Optional extras of any are left out.
    """
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # asked for on other systems
            continue
        waiting += _needed(found[name])
    components = [
        {"type": "library", "name": name, "version": each.version, "purl": f"pkg:pypi/{name}@{each.version}"}
        for name, each in sorted(found.items())
    ]
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}


def _needed(installed: Distribution) -> list[str]:
    needed = []
    for text in installed.requires or []:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            needed.append(wanted.name)
    return needed
