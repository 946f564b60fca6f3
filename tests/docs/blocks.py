"""Commands of the documentation, as a shell understands them."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: With no folder to find programs in, bash hands each command to this function instead. `;;` cannot be a word of one.
_TOLD = """command_not_found_handle() { printf '%s\\0' "$@" ';;' >>"$TOLD"; }\n"""
#: Of infra/cluster.sh, which the cluster page's shells have read, what cannot be empty.
_EXPORTED = {"IN_PODS": "{}", "KFP_HOST": "http://localhost:8080", "NAMESPACE": "condswin"}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str = "sh") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(block: str, folder: Path) -> Iterator[list[str]]:
    """What bash would run: it resolves loops, variables, continuations and comments, and runs nothing."""
    script, told = _TOLD + block.replace(".venv/bin/", "") + "\nwait\n", folder / "told"
    told.write_text("")
    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=folder, env={"PATH": "/none", "TOLD": str(told), **_EXPORTED},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert "syntax error" not in done.stderr, done.stderr
    command: list[str] = []
    for word in told.read_text().split("\0")[:-1]:
        if word == ";;":
            yield command
            command = []
        else:
            command.append(word)
