"""The docker client, as tests call it."""

import subprocess

#: What the image is told that its code's commit is.
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def docker(*arguments: str, check: bool = True, timeout: float = 300) -> str:
    """Runs the docker client and returns what it printed."""
    ended = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout)
    assert not check or ended.returncode == 0, f"docker {' '.join(arguments)}:\n{ended.stdout}{ended.stderr}"[-6000:]
    return ended.stdout.strip()


def daemon_answers() -> bool:
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
