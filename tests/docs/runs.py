"""Makes sections of the appendix anew: `python -m tests.docs.runs "Routing"`, or without a name all of them, for hours.

A section's commands run in an empty folder below `build/runs`, beside `../shared`, with the models of this checkout
unless they train their own. What they print, from the first table on, takes the place of what stands below them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT

PAGE = ROOT / "docs/appendix/runs.md"
#: A block of commands, and what stands below it until the next block, sentence in bold or heading.
_RUN = re.compile(r"(?P<block>^```sh\n.*?^```\n)(?P<printed>.*?)(?=^```sh|^\*\*|^## |\Z)", re.DOTALL | re.MULTILINE)


def sections(page: str) -> list[str]:
    return re.split(r"^(?=## )", page, flags=re.MULTILINE)


def title(section: str) -> str:
    return section.partition("\n")[0].removeprefix("## ")


def printed_by(block: str, folder: Path) -> str:
    """Runs the commands, whose notices and errors stay on the terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in (("../shared", ROOT.parent / "shared"), ("models", ROOT / "models")):
        link = folder / name
        if not link.is_symlink() and target.exists() and (name != "models" or "condswin train" not in block):
            link.symlink_to(target)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = re.sub(r"^```(sh)?\n", "", block, flags=re.MULTILINE)
    shell = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(shell, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("|")), 0)
    return "\n" + "\n".join(lines[first:]).strip() + "\n\n"


def made_anew(section: str, folder: Path) -> str:
    return _RUN.sub(lambda run: run["block"] + printed_by(run["block"], folder), section)


def main(page: Path, wanted: list[str], folder: Path) -> None:
    """Writes after each section, so that hours are not lost."""
    parts = sections(page.read_text())
    if unknown := set(wanted) - set(map(title, parts)):
        sys.exit(f"{page} has no section {', '.join(sorted(unknown))}")
    for number, section in enumerate(parts):
        if number and (not wanted or title(section) in wanted):
            parts[number] = made_anew(section, folder / str(number))
            page.write_text("".join(parts).rstrip() + "\n")


if __name__ == "__main__":
    main(PAGE, sys.argv[1:], ROOT / "build/runs")
