"""Images by digest: what `infra/images.yaml` records, put in the place of tags."""

import re
from pathlib import Path
from typing import Any

from condswin.config.reading import read_yaml, validated
from condswin.config.section import Section
from condswin.errors import ConfigError

DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
IMAGES = Path("infra/images.yaml")


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
    executors = {}
    for label, executor in spec["deploymentSpec"]["executors"].items():
        if "container" in executor:
            image = executor["container"]["image"]
            if not DIGEST.fullmatch(image) and image not in images:
                raise ConfigError(
                    f"cluster.image: {image!r} is a tag, which can move; name it by digest, or push it with "
                    f"`make image PUSH=REGISTRY/NAME`, which records the digest in {origin}"
                )
            executor = {**executor, "container": {**executor["container"], "image": images.get(image, image)}}
        executors[label] = executor
    return {**spec, "deploymentSpec": {**spec["deploymentSpec"], "executors": executors}}
