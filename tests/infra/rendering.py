"""Objects that kubectl makes of infra/kustomize, and what of them makes pods."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]

Object = dict[str, Any]


def render(overlay: Path) -> list[Object]:
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of(objects: list[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def one(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [each for each in of(objects, kind) if each["metadata"]["name"] == name]
    return found


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Name and template of everything that makes pods."""
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield f"{each['kind']}/{each['metadata']['name']}", spec["template"]


def containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for name, template in pods(objects):
        for each in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
            yield f"{name}/{each['name']}", each
