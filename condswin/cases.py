"""Files of a folder by the case that they belong to."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from condswin.errors import BadDataError
from condswin.plain import plain


def by_case(paths: Iterable[Path], case: Callable[[Path], str]) -> dict[str, Path]:
    """Files by case, sorted by path.

    Args:
        paths: The files.
        case: Of a file.

    Raises:
        BadDataError: Two files are of one case: nobody can tell which one counts.
    """
    found: dict[str, Path] = {}
    for path in sorted(paths):
        if (other := found.setdefault(case(path), path)) != path:
            raise BadDataError(
                f"{plain(other.parent)}: {plain(other.name)} and {plain(path.name)} are both of the case "
                f"{plain(case(path))}; remove or rename one of them"
            )
    return found


def endings(folder: Path) -> str:
    """What a folder holds, for messages: "there are 3 .nii.gz, 1 .txt"."""
    if not folder.is_dir():
        return "there is no such folder"
    counts = Counter(
        _ending(path.name) for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    )
    shown = ", ".join(f"{count} {plain(ending, 20)}" for ending, count in counts.most_common(5))
    return f"there are {shown}" if shown else "there is no file in it"


def _ending(name: str) -> str:
    path = Path(name.lower())
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix or "without ending"
