"""Which code and which libraries make a result, for the records that results carry."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: Libraries whose version may change a network's weights or scores.
LIBRARIES = ("torch", "lightning", "numpy", "einops", "monai", "h5py", "nibabel", "scipy")

_PACKAGE = Path(__file__).parent
#: Tracked files that make results; what a pipeline writes beside them is no change of code.
_CODE = (":(top)condswin", ":(top)params.yaml", ":(top)dvc.yaml", ":(top)requirements.lock", ":(top)pyproject.toml")


def git_state() -> dict[str, str]:
    """Commit of this code, `git_commit`, and whether files differ from it, `git_dirty`: `true`, `false` or `unknown`.

    The commit is what CONDSWIN_GIT_COMMIT says (images set it), else what git says of the folder that this package
    lies in, if it is tracked there, else `unknown`.
    """
    if given := os.environ.get("CONDSWIN_GIT_COMMIT", "").strip():
        return {"git_commit": given, "git_dirty": "unknown"}
    # An installed package may lie inside a repository of somebody else's.
    tracked = _git("ls-files", "--error-unmatch", "--", Path(__file__).name)
    commit = _git("rev-parse", "HEAD") if tracked else None
    if not commit:
        return {"git_commit": "unknown", "git_dirty": "unknown"}
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    return {"git_commit": commit, "git_dirty": "unknown" if changed is None else str(bool(changed)).lower()}


def software() -> str:
    """Name, version and commit of this code."""
    try:
        number = version("condswin")
    except PackageNotFoundError:
        number = "unknown"
    return f"condswin {number}, commit {git_state()['git_commit'][:12]}"


def libraries() -> dict[str, str]:
    """Versions of Python and of the installed ones of `LIBRARIES`."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def knows_commit(commit: str) -> bool:
    """Whether git has a commit, in the repository that this package lies in or the working folder's."""
    places = (_PACKAGE, Path.cwd())
    return any(_git("cat-file", "-e", f"{commit}^{{commit}}", place=place) is not None for place in places)


def _git(*arguments: str, place: Path | None = None) -> str | None:
    command = ["git", "-C", str(place or _PACKAGE), *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout.strip()
