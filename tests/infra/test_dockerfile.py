import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra" / "Dockerfile"


def stages() -> dict[str, list[str]]:
    """Instructions of each stage, comments and line breaks removed."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    found: dict[str, list[str]] = {}
    for line in filter(None, text.splitlines()):
        if match := re.match(r"FROM \S+ AS (\S+)", line):
            found[match[1]] = []
        elif found:
            found[list(found)[-1]].append(line)
    return found


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_there_is_no_entry_point() -> None:
    """With one, a task's command would be its arguments: tasks would succeed and do nothing."""
    assert not re.search(r"^\s*ENTRYPOINT", DOCKERFILE.read_text(), re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_last_user_is_a_number_and_not_root(target: str) -> None:
    users = [line.split()[1] for line in stages()[target] if line.startswith("USER ")]
    assert re.fullmatch(r"[1-9]\d*(:\d+)?", users[-1])


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_packages_come_from_the_lock_file_and_before_the_code(target: str) -> None:
    lines = stages()[target]
    (packages,) = [number for number, line in enumerate(lines) if "--constraint requirements.lock" in line]
    (code,) = [number for number, line in enumerate(lines) if line.startswith("COPY condswin/")]
    assert packages < code


def test_only_what_the_classic_builder_knows() -> None:
    assert "--mount" not in DOCKERFILE.read_text()
    assert "<<" not in DOCKERFILE.read_text()


def test_every_copied_file_is_let_into_the_build_context() -> None:
    listed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for lines in stages().values():
        for line in lines:
            if line.startswith("COPY "):
                for source in line.split()[1:-1]:
                    assert any(entry == source.strip("/") or entry.startswith(source) for entry in listed), source
                    assert (ROOT / source).exists(), source


@pytest.mark.parametrize(
    "kept_out", ["data", ".git", ".venv", "mlflow.db", "mlartifacts", ".env", "checkpoints", "tests"]
)
def test_build_context_keeps_data_and_secrets_out(kept_out: str) -> None:
    """All but a list stays out, so what nobody thought of stays out too."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert not [line for line in lines if line.startswith("!") and line[1:].split("/")[0] in (kept_out, "*", "**", ".")]
