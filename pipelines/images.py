"""Images by digest: what `infra/images.yaml` records, put in the place of tags in pipelines and manifests."""

import copy
import re
from pathlib import Path
from typing import Any

import yaml

from condswin.config.reading import read_yaml, validated
from condswin.config.section import Section
from condswin.errors import ConfigError
from condswin.files import atomic_file

DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
IMAGES = Path("infra/images.yaml")
#: How manifests call images until kustomize gives them their digests; nothing can be pulled from there.
UNPINNED = "unpinned.invalid/"
HEADER = """# Images by digest, as parameters and manifests call them. `make image PUSH=...` and `make pin` write it.
"""
COMPONENT = """# Written from infra/images.yaml by `make image` and `make pin`.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
"""


class Image(Section):
    """An image as a registry knows it.

    Attributes:
        name: Registry and repository, without a tag.
        digest: `sha256:` and 64 hex digits, as the registry said when it was pushed or pulled.
        tag: What it was called there when its digest was read; for people.
        size: Bytes, of what it unpacks to.
        commit: Of the code in it; empty for an image of others.
        sbom: File with the packages in it, beside this one; empty for an image of others.
    """

    name: str
    digest: str
    tag: str = ""
    size: int = 0
    commit: str = ""
    sbom: str = ""


class Images(Section):
    """What `infra/images.yaml` holds.

    Attributes:
        images: By the name that parameters and manifests call them.
    """

    images: dict[str, Image] = {}  # noqa: RUF012  # pydantic copies defaults


def read_images(path: Path = IMAGES) -> dict[str, str]:
    """Images by digest, by what parameters call them; none where there is no such file.

    Raises:
        ConfigError: The file is something else.
    """
    if not path.exists():
        return {}
    known = validated(Images, read_yaml(path), origin=str(path)).images
    found = {called: f"{image.name}@{image.digest}" for called, image in known.items()}
    for called, image in found.items():
        if not DIGEST.fullmatch(image):
            raise ConfigError(f"{path}: images.{called}: {image!r} is not NAME@sha256:<64 hex digits>; push it again")
    return found


def record(called: str, image: Image, path: Path = IMAGES) -> None:
    """Notes an image, in place of what was noted under its name, and hands all of them to kustomize.

    Raises:
        ConfigError: The file is something else, or the image has no digest.
    """
    known = validated(Images, read_yaml(path), origin=str(path)).images if path.exists() else {}
    if not DIGEST.fullmatch(f"{image.name}@{image.digest}"):
        raise ConfigError(f"{called}: {image.name}@{image.digest} is not NAME@sha256:<64 hex digits>")
    known = dict(sorted({**known, called: image}.items()))
    values = {each: value.model_dump(exclude_defaults=True) for each, value in known.items()}
    pins = [
        {"name": f"{UNPINNED}{each.replace(':', '-')}", "newName": value.name, "digest": value.digest}
        for each, value in known.items()
    ]
    component = path.parent / "kustomize" / "images" / "kustomization.yaml"
    for file, text in (
        (path, HEADER + yaml.safe_dump({"images": values}, sort_keys=False)),
        (component, COMPONENT + yaml.safe_dump({"images": pins}, sort_keys=False)),
    ):
        with atomic_file(file) as temporary:
            temporary.write_text(text)


def tasks_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All tasks of a compiled pipeline, those within others too."""
    dags = [spec["root"]["dag"], *(each["dag"] for each in spec["components"].values() if "dag" in each)]
    return [task for dag in dags for task in dag["tasks"].values()]


def pinned(spec: dict[str, Any], images: dict[str, str], *, origin: Path = IMAGES) -> dict[str, Any]:
    """A pipeline whose images are all named by digest.

    Kubeflow's cache does not notice when a tag moves, and a retry may run other code than the first try.

    Args:
        spec: A compiled pipeline.
        images: What `read_images` returned.
        origin: Where the images came from, for messages.

    Raises:
        ConfigError: An image is a tag that is not recorded.
    """

    def by_digest(image: str) -> str:
        if not DIGEST.fullmatch(image) and image not in images:
            raise ConfigError(
                f"{image}: a tag, which can move; name the image by digest, or push it with `make image "
                f"PUSH=REGISTRY/NAME`, which notes its digest in {origin}"
            )
        return images.get(image, image)

    executors = {}
    for label, executor in spec["deploymentSpec"]["executors"].items():
        if "container" in executor:
            container = executor["container"]
            executor = {**executor, "container": {**container, "image": by_digest(container["image"])}}
        executors[label] = executor
    spec = copy.deepcopy(spec)
    for task in tasks_of(spec):
        # What `register` tags a version with, and what a TrainJob runs.
        given = task.get("inputs", {}).get("parameters", {}).get("image", {}).get("runtimeValue", {})
        if "constant" in given:
            given["constant"] = by_digest(given["constant"])
    return {**spec, "deploymentSpec": {**spec["deploymentSpec"], "executors": executors}}
