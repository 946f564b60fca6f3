"""`make image` and `make pin` with a pretended docker; tests/containers/test_push.py has a real one and a registry."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from condswin.errors import CondswinError
from pipelines.__main__ import app
from pipelines.building import _CONTENT, sbom
from pipelines.images import read_images

ROOT = Path(__file__).parents[2]
DIGEST = f"sha256:{'b' * 64}"
#: Knows one image under two names, and what is in it.
DOCKER = """#!/bin/sh
echo "$@" >> docker.log
case "$1 $2" in
  "image inspect") cat inspected ;;
  "push "*) exit "$(cat pushing)" ;;
  "run --rm") echo '[["deb/debian", "libc6", "2.36-9+deb12u1", ""], ["pypi", "numpy", "2.4.6", "BSD-3-Clause"]]' ;;
esac
"""


@pytest.fixture
def tree(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed tree, with its docker first on PATH."""
    fake = workdir / "fakes" / "docker"
    fake.parent.mkdir()
    fake.write_text(DOCKER)
    fake.chmod(0o755)
    names = ["other/x@sha256:" + "0" * 64, f"registry.example:5000/team/condswin@{DIGEST}", f"postgres@{DIGEST}"]
    (workdir / "inspected").write_text(json.dumps([{"Size": 2_400_000_000, "RepoDigests": names}]))
    (workdir / "pushing").write_text("0")
    (workdir / "infra").mkdir()
    (workdir / "infra/Dockerfile").touch()
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "--quiet"), ("add", "infra"), ("commit", "--quiet", "--message", "a")):
        subprocess.run([*git, *command], cwd=workdir, check=True)
    return workdir


def pipelines(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def commands(tree: Path) -> list[str]:
    return (tree / "docker.log").read_text().splitlines()


def test_an_image_is_labelled_pushed_and_noted(tree: Path) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    said = pipelines("image", "--target", "gpu", "--push", "registry.example:5000/team/condswin")
    assert "condswin:gpu: 2.40 GB" in said
    build, *rest = commands(tree)
    assert f"--build-arg GIT_COMMIT={commit}" in build
    assert f"--label org.opencontainers.image.revision={commit}" in build
    assert "--label org.opencontainers.image.version=" in build
    assert f"push registry.example:5000/team/condswin:{commit[:12]}-gpu" in rest
    (noted,) = yaml.safe_load((tree / "infra/images.yaml").read_text())["images"].values()
    assert noted == {
        "name": "registry.example:5000/team/condswin", "digest": DIGEST, "tag": f"{commit[:12]}-gpu",
        "size": 2_400_000_000, "commit": commit, "sbom": "sbom/condswin-gpu.cdx.json"}  # fmt: skip
    assert read_images(tree / "infra/images.yaml") == {"condswin:gpu": f"registry.example:5000/team/condswin@{DIGEST}"}
    listed = json.loads((tree / "infra/sbom/condswin-gpu.cdx.json").read_text())["components"]
    assert [each["purl"] for each in listed] == ["pkg:deb/debian/libc6@2.36-9%2Bdeb12u1", "pkg:pypi/numpy@2.4.6"]


def test_another_image_is_noted_beside_it_and_given_to_kustomize(tree: Path) -> None:
    pipelines("image", "--push", "registry.example:5000/team/condswin")
    pipelines("pin", "postgres", "docker.io/library/postgres:17")
    assert read_images(tree / "infra/images.yaml")["postgres"] == f"docker.io/library/postgres@{DIGEST}"
    component = yaml.safe_load((tree / "infra/kustomize/images/kustomization.yaml").read_text())
    assert component["images"] == [
        {"name": "unpinned.invalid/condswin-cpu", "newName": "registry.example:5000/team/condswin", "digest": DIGEST},
        {"name": "unpinned.invalid/postgres", "newName": "docker.io/library/postgres", "digest": DIGEST},
    ]


def test_nothing_is_noted_of_what_is_not_pushed(tree: Path) -> None:
    pipelines("image")
    assert not [each for each in commands(tree) if each.startswith("push")]
    (tree / "pushing").write_text("1")
    with pytest.raises(CondswinError, match="docker push ended with status 1"):
        pipelines("image", "--push", "registry.example:5000/team/condswin")
    (tree / "pushing").write_text("0")
    with pytest.raises(CondswinError, match=r"docker knows no digest of it in registry\.example/elsewhere"):
        pipelines("image", "--push", "registry.example/elsewhere")
    assert not (tree / "infra/images.yaml").exists()


def test_a_changed_tree_is_not_pushed_since_its_commit_would_lie(tree: Path) -> None:
    (tree / "infra/Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(CondswinError, match=r"differ from commit .* infra/Dockerfile; commit first"):
        pipelines("image", "--push", "registry.example:5000/team/condswin")
    pipelines("image")
    assert "-dirty" in commands(tree)[0]
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=tree, check=True)
    (tree / "condswin").mkdir()
    (tree / "condswin/new.py").touch()
    with pytest.raises(CondswinError, match=r"differ from commit .* condswin/; commit first"):
        pipelines("image", "--push", "registry.example:5000/team/condswin")


def test_what_may_enter_an_image_must_be_committed() -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert {each for each in let_in if not each.startswith("infra/wheels")} <= set(_CONTENT)


def test_both_targets_are_pushed_from_one_commit(tree: Path) -> None:
    """The first notes its digest in a tracked file, which is no part of the image."""
    for command in (("add", "inspected"), ("commit", "--quiet", "--message", "b")):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=tree, check=True)
    (tree / "inspected").write_text((tree / "inspected").read_text() + "\n")
    for target in ("cpu", "gpu"):
        pipelines("image", "--target", target, "--push", "registry.example:5000/team/condswin")
    assert read_images(tree / "infra/images.yaml").keys() == {"condswin:cpu", "condswin:gpu"}


@pytest.mark.parametrize(
    "arguments",
    [("image", "--target", "tpu"), ("image", "--push", "r/a:tag"), ("image", "--push", "name"), ("pin", "a", "r/a"),
     ("pin", "a", f"r/a@{DIGEST}")],
)  # fmt: skip
def test_other_names_are_refused(tree: Path, arguments: tuple[str, ...]) -> None:
    assert "Error" in pipelines(*arguments)
    assert not (tree / "docker.log").exists()


def test_without_docker_it_says_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tree / "empty"))
    with pytest.raises(CondswinError, match=r"docker: No such file or directory; install it"):
        pipelines("pin", "postgres", "docker.io/library/postgres:17")


def test_a_bill_of_materials_names_its_image() -> None:
    bill = sbom("condswin:cpu", f"r/c@{DIGEST}", {"revision": "abc", "version": "0.1.0"}, [["pypi", "a", "1~b", ""]])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["bom-ref"] == f"r/c@{DIGEST}"
    (part,) = bill["components"]
    assert (part["type"], part["name"], part["version"], part["purl"]) == ("library", "a", "1~b", "pkg:pypi/a@1%7Eb")
    assert part["bom-ref"] == part["purl"]
    assert "licenses" not in part
