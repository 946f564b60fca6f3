"""Messages about names that do not exist, with the nearest ones that do."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """`no KIND 'swim'; did you mean 'swin'? there are: swin, unet`."""
    names = list(known)
    return f"no {kind} {name!r};{nearest(name, names)} there are: {', '.join(names)}".replace("no  ", "no ")


def nearest(name: object, known: Iterable[str]) -> str:
    """` did you mean 'swin'?`, or nothing where no known name is near."""
    near = get_close_matches(str(name), list(known), n=1)
    return f" did you mean {near[0]!r}?" if near else ""
