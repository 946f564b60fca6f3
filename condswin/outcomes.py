"""What a failure means for a pipeline: whether another try could end otherwise."""

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import signature
from typing import ParamSpec

from condswin.errors import (
    BadDataError,
    BadFileError,
    CondswinError,
    ConfigError,
    DivergedError,
    DriftError,
    SourceError,
)
from condswin.plain import plain

P = ParamSpec("P")
#: The same input ends the same way.
_FINAL = (BadDataError, BadFileError, ConfigError, DivergedError, DriftError)
#: Characters of an outcome. A backend takes parameters of 10 kB (kubeflow/pipelines#2286), a verdict takes several.
LONGEST = 2000


def settled(step: Callable[P, str | None]) -> Callable[P, str]:
    """A step that tells of a failure which no other try would mend, instead of failing.

    Kubeflow tries whatever ends with another status than 0 again, hours of training included.

    Args:
        step: What a task of a pipeline runs; its arguments `task` and `variant` are named in the outcome. It may return
            the outcome of another one that did its work.

    Returns:
        The same; it returns an empty text, or what stops the pipeline: `STEP TASK: message`.
    """

    @wraps(step)
    def run(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return step(*args, **kwargs) or ""
        except _FINAL as error:
            if _may_pass(error):
                raise
            given = signature(step).bind(*args, **kwargs).arguments
            named = " ".join([step.__name__, *(given[name] for name in ("task", "variant") if given.get(name))])
            outcome = _shortened(f"{named}: {error}")
            print(f"stopped: {outcome}")
            return outcome

    return run


def _may_pass(error: CondswinError) -> bool:
    """Whether a machine or a network was at fault: the system says so by a number, where libraries have none."""
    return any(isinstance(cause, SourceError) or getattr(cause, "errno", None) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        # `raise ... from None` hides what was before, and keeps it.
        cause = cause.__cause__ or cause.__context__


def _shortened(text: str) -> str:
    lines = [plain(line) for line in text.split("\n")]
    shown = "\n".join(lines)
    if len(shown) <= LONGEST:
        return shown
    return f"{shown[: LONGEST - 20]} ... (cut)"
