"""Commands of docs/how-to/cluster.md, and what runs them without a cluster."""

import base64
import re
import shlex
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import yaml

from tests.infra.rendering import ROOT

PAGE = (ROOT / "docs/how-to/cluster.md").read_text()
SETTINGS = (ROOT / "infra/cluster.sh").read_text()
#: The registry's user and password, and Slack's address.
TYPED = 'j.doe\nwith "quotes", $signs and \\\nhttps://hooks.slack.com/services/T0/B0/x\n'
#: What is read first; and of kubectl what needs no server: Secrets are kept in the folder `made`.
KUBECTL = (
    f". {ROOT}/infra/cluster.sh"
    + """
k() {
  if [ "$1" = get ]; then
    key=${5#*.data.}; sed -n "s/^  ${key%?}: //p" "made/$3.yaml"
  elif [ -e "made/$4.yaml" ]; then
    echo AlreadyExists >&2; return 1
  else
    kubectl --namespace condswin "$@" --dry-run=client -o yaml > made/new && mv made/new "made/$4.yaml"
  fi
}
"""
)


def blocks(heading: str) -> list[str]:
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def commands() -> list[list[str]]:
    """Each command of the page, without comments and continuations."""
    text = re.sub(r"\\\n\s*", "", "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)))
    text = re.sub(r"<<'END'\n.*?\nEND", "", text, flags=re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]
    return [[*words] for line in lines for joined, words in groupby(line, "&&".__eq__) if not joined]


def run(script: str, folder: Path, *, typed: str = "", fails: bool = False) -> str:
    """What bash says when it runs a script; where it is to fail, what it says of that."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euc", script], input=typed, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


def make_secrets(folder: Path) -> dict[str, dict[str, str]]:
    """What step 2 makes beside what is there: values by key and name."""
    for name in ("infra/kustomize", "made"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "infra/kustomize/laptop", folder / "infra/kustomize/laptop", dirs_exist_ok=True)
    before = {each for each in folder.rglob("*") if each.parent.name != "made"}
    lines = "".join(blocks("2. Secrets")).splitlines()
    lines = [line for line in lines if not line.startswith(("grep", "  sed", "k get"))]
    run(KUBECTL + "set +e\n" + "\n".join(lines) + "\ntrue", folder, typed=TYPED)
    assert {each for each in folder.rglob("*") if each.parent.name != "made"} == before
    made = [yaml.safe_load(each.read_text()) for each in (folder / "made").glob("*.yaml")]
    return {
        each["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in each["data"].items()}
        for each in made
    }
