from importlib.metadata import version

from condswin.registry.package import REQUIREMENTS
from condswin.registry.sbom import sbom


def test_what_a_package_needs_is_listed_with_what_that_needs() -> None:
    found = sbom(REQUIREMENTS)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.5")
    listed = {component["name"]: component["version"] for component in found["components"]}
    assert set(REQUIREMENTS) <= set(listed)
    assert listed["torch"] == version("torch")
    assert "sympy" in listed  # of torch's
    assert "pytest" not in listed  # an extra's
    assert sbom(("Torch", "no-such-distribution"))["components"] == sbom(("torch",))["components"]
    assert sbom(("numpy",))["components"] == [
        {
            "type": "library",
            "name": "numpy",
            "version": version("numpy"),
            "purl": f"pkg:pypi/numpy@{version('numpy')}",
        }
    ]
