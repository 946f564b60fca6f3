"""What was seen of one thing."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failed", "not used"]


@dataclass(frozen=True)
class Finding:
    """What was seen of one thing.

    Attributes:
        name: The thing.
        state: `failed` if a run would fail, `warning` if it might, `not used` if the parameters do without it.
        said: What was seen; nothing secret, and no text of a server's.
        mend: What to do; empty if nothing.
    """

    name: str
    state: State
    said: str
    mend: str = ""
