"""All commands of the command line, and the examples in their help."""

import shlex
from typing import Any

import typer

from condswin.cli import app


def _below(command: Any, name: str) -> dict[str, Any]:
    below = getattr(command, "commands", {})
    found = {} if below else {name: command}
    for word, each in below.items():
        found |= _below(each, f"{name} {word}".strip())
    return found


#: Each command by the words that call it.
COMMANDS = _below(typer.main.get_command(app), "")


def examples(name: str) -> list[list[str]]:
    """The arguments of each example in a command's help, without the name of the program."""
    lines = [line.strip().removeprefix("Example: ") for line in (COMMANDS[name].help or "").splitlines()]
    found = [line[line.index("condswin ") :] for line in lines if line.startswith("condswin ") or "Example: " in line]
    return [shlex.split(line)[1:] for line in found]
