"""The commands that make images, or look them up, and note their digests: `make image`, `make pin`."""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from condswin.errors import CondswinError, ConfigError
from condswin.files import write_json
from condswin.plain import plain
from pipelines.images import IMAGES, Image, record

Called = Annotated[str, typer.Argument(help="As parameters and manifests call it: condswin:cpu, postgres.")]
File = Annotated[Path, typer.Option("--images", help="Where digests are noted.")]

#: What the image is made of (.dockerignore lets in no more).
_CONTENT = (
    *("infra/Dockerfile", ".dockerignore", "pyproject.toml", "requirements.lock", "README.md"),
    *("condswin", "components", "pipelines"),
)
#: Run inside an image; lists what pip and Debian installed there.
_PACKAGES = """
import importlib.metadata, json, shutil, subprocess
found = set()
for each in importlib.metadata.distributions():
    licence = each.metadata.get("License-Expression") or ""
    found.add(("pypi", each.name.lower().replace("_", "-"), each.version, licence))
if shutil.which("dpkg-query"):
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}\\n"]
    for line in subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines():
        found.add(("deb/debian", *line.split(), ""))
print(json.dumps(sorted(found)))
"""


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(image)
    app.command()(pin)


def image(
    target: Annotated[str, typer.Option(help="Of infra/Dockerfile: cpu or gpu.")] = "cpu",
    push: Annotated[str, typer.Option(metavar="REGISTRY/NAME", help="Where to; without it, nothing is noted.")] = "",
    build_arg: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="For docker build.")] = None,
    file: File = IMAGES,
) -> None:
    """Build the image, label it, write what is in it (CycloneDX), push it, and note the digest that it got.

    Example: make image TARGET=gpu PUSH=registry.example.org/condswin
    """
    if target not in ("cpu", "gpu"):
        raise typer.BadParameter(f"{target!r} is neither cpu nor gpu", param_hint="--target")
    if push and ("@" in push or ":" in push.rpartition("/")[2] or "/" not in push):
        raise typer.BadParameter(f"{push!r} is not REGISTRY/NAME; the tag is made here", param_hint="--push")
    commit = _run("git", "rev-parse", "HEAD")
    if changed := _run("git", "status", "--porcelain", "--", *_CONTENT):
        if push:
            names = plain(", ".join(line[2:].strip() for line in changed.splitlines()), 200)
            raise CondswinError(
                f"these files differ from commit {commit[:12]}, which the image names: {names}; commit first"
            )
        commit += "-dirty"
    called = f"condswin:{target}"
    labels = {"revision": commit, "version": version("condswin"), "title": "condswin"}
    arguments = [f"GIT_COMMIT={commit}", *(build_arg or [])]
    _show(
        *("docker", "build", "--file", "infra/Dockerfile", "--target", target, "--tag", called),
        *(part for each in arguments for part in ("--build-arg", each)),
        *(part for name, value in labels.items() for part in ("--label", f"org.opencontainers.image.{name}={value}")),
        ".",
    )
    (details,) = json.loads(_run("docker", "image", "inspect", called))
    print(f"{called}: {details['Size'] / 1e9:.2f} GB, commit {commit[:12]}")
    if not push:
        return
    tag = f"{commit[:12]}-{target}"
    _run("docker", "tag", called, f"{push}:{tag}")
    _show("docker", "push", f"{push}:{tag}")
    bom = Path("sbom") / f"condswin-{target}.cdx.json"
    listed = json.loads(_run("docker", "run", "--rm", "--network", "none", called, "python3", "-c", _PACKAGES))
    digest = _digest(called, push)
    write_json(file.parent / bom, sbom(called, f"{push}@{digest}", labels, listed))
    noted = Image(name=push, digest=digest, tag=tag, size=details["Size"], commit=commit, sbom=str(bom))
    record(called, noted, file)
    print(f"{file}: {called} is {push}@{digest}; commit it")


def pin(
    called: Called, reference: Annotated[str, typer.Argument(help="REGISTRY/NAME:TAG.")], file: File = IMAGES
) -> None:
    """Pull somebody else's image and note the digest that its tag has today.

    Example: make pin NAME=postgres FROM=docker.io/library/postgres:17
    """
    name, _, tag = reference.rpartition(":")
    if not name or "/" in tag or "@" in reference:
        raise typer.BadParameter(f"{reference!r} is not NAME:TAG")
    _show("docker", "pull", reference)
    (details,) = json.loads(_run("docker", "image", "inspect", reference))
    record(called, Image(name=name, digest=_digest(reference, name), tag=tag, size=details["Size"]), file)
    print(f"{file}: {called} is {reference} as of today; commit it")


def sbom(called: str, image: str, labels: dict[str, str], packages: list[list[str]]) -> dict[str, Any]:
    """What is in an image, in CycloneDX 1.6.

    Args:
        called: The image's name.
        image: The same by digest.
        labels: Its labels.
        packages: Kind (of a package URL), name, version and licence of each package.
    """

    def component(kind: str, name: str, number: str, licence: str) -> dict[str, Any]:
        purl = f"pkg:{kind}/{name}@{number}".replace("+", "%2B").replace("~", "%7E")
        said = {"licenses": [{"expression": licence}]} if licence else {}
        return {"type": "library", "bom-ref": purl, "name": name, "version": number, "purl": purl, **said}

    subject = {"type": "container", "bom-ref": image, "name": called, "version": labels["version"]}
    properties = [{"name": "org.opencontainers.image.revision", "value": labels["revision"]}]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**subject, "properties": properties}},
        "components": [component(*each) for each in packages],
    }


def _digest(image: str, name: str) -> str:
    # Docker writes a short name of its own hub in the place of the long one.
    short = name.removeprefix("docker.io/").removeprefix("library/")
    (details,) = json.loads(_run("docker", "image", "inspect", image))
    for each in details["RepoDigests"]:
        repository, _, digest = each.partition("@")
        if repository.removeprefix("docker.io/").removeprefix("library/") == short:
            return str(digest)
    raise ConfigError(f"{image}: docker knows no digest of it in {name}; push or pull it once more")


def _run(*command: str) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise CondswinError(f"{command[0]}: {error.strerror}; install it, or put it on PATH") from None
    if ended.returncode:
        said = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
        raise CondswinError(f"{' '.join(command[:3])}: {plain(said[-1] if said else ended.returncode, 300)}")
    return ended.stdout.strip()


def _show(*command: str) -> None:
    try:
        ended = subprocess.run(command)
    except OSError as error:
        raise CondswinError(f"{command[0]}: {error.strerror}; install it, or put it on PATH") from None
    if ended.returncode:
        raise CondswinError(f"{' '.join(command[:2])} ended with status {ended.returncode}; its own message is above")
