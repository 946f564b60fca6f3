"""Whether a result is still the result of its inputs: one key for everything that decides it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from condswin.code import closure
from condswin.config.names import TaskName
from condswin.files import fingerprint


@dataclass(frozen=True)
class Key:
    """What decides a result.

    Attributes:
        parameters: JSON-able; those that the step reads, and nothing that leaves the result as it is.
        inputs: Checksums of contents, by name.
        code: Checksums of the code that makes it, by file.
    """

    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Equal for equal keys."""
        return fingerprint(self.record())

    @property
    def code_sha256(self) -> str:
        """Checksum of the code alone."""
        return fingerprint(dict(self.code))

    def record(self) -> dict[str, Any]:
        """The key as JSON, to be kept with the result."""
        return {"parameters": dict(self.parameters), "inputs": dict(self.inputs), "code": dict(self.code)}

    def changes_since(self, record: Mapping[str, Any]) -> list[str]:
        """What differs from the key of an earlier result, in words: "code changed: condswin/mri/masks.py"."""
        found = []
        for kind, now in self.record().items():
            then = record.get(kind)
            then = then if isinstance(then, Mapping) else {}
            changed = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
            if changed:
                more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
                found.append(f"{kind} changed: {', '.join(changed[:5])}{more}")
        return found


def make_key(step: str, task: TaskName, *, parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> Key:
    """The key of a step's result with the code as it is now.

    Args:
        step: A module of `condswin.steps`.
        task: Which task.
        parameters: See `Key`.
        inputs: See `Key`.
    """
    return Key(parameters, inputs, closure(step, task))
