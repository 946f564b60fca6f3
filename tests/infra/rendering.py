"""Objects that kubectl makes of infra/kustomize, and what of them makes pods."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipelines.images import Image, record

ROOT = Path(__file__).parents[2]

Object = dict[str, Any]
#: The last is `production` for trainings of several nodes too.
OVERLAYS = ("laptop", "production", "nodes")


def render(overlay: Path) -> list[Object]:
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def with_trainer(folder: Path) -> Path:
    """A copy of the overlay `production` beside it, in `infra/kustomize`, for trainings of several nodes too."""
    shutil.copytree(folder / "production", folder / "nodes")
    written = folder / "nodes" / "kustomization.yaml"
    written.write_text(written.read_text().replace("- ../images\n", "- ../trainer\n- ../images\n"))
    return folder / "nodes"


def with_images(folder: Path) -> Path:
    """A copy of infra/kustomize in a folder, with all of `OVERLAYS` and every image recorded."""
    shutil.copytree(ROOT / "infra/kustomize", folder / "kustomize")
    with_trainer(folder / "kustomize")
    for number, called in enumerate(("condswin:cpu", "condswin:gpu", "postgres", "seaweedfs")):
        image = Image(name=f"registry.example/{called.partition(':')[0]}", digest=f"sha256:{number:064x}")
        record(called, image, folder / "images.yaml")
    return folder / "kustomize"


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
        if each["kind"] == "TrainingRuntime":
            for job in spec["template"]["spec"]["replicatedJobs"]:
                yield f"{each['kind']}/{each['metadata']['name']}", job["template"]["spec"]["template"]
        elif "template" in spec:
            yield f"{each['kind']}/{each['metadata']['name']}", spec["template"]


def containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for name, template in pods(objects):
        for each in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
            yield f"{name}/{each['name']}", each
