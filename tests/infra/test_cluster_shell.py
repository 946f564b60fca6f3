"""What infra/cluster.sh and step 2 of docs/how-to/cluster.md make, in the shell of a person."""

import base64
import json
import re
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.infra.page import KUBECTL, PAGE, TYPED, blocks, make_secrets, run
from tests.infra.rendering import ROOT, Object, containers, pods, render


def read(folder: Path) -> str:
    """What reads infra/cluster.sh, with the settings of a laptop."""
    shutil.copytree(ROOT / "infra/kustomize/laptop", folder / "infra/kustomize/laptop")
    return f". {ROOT}/infra/cluster.sh\n"


def wanted(objects: list[Object]) -> set[tuple[str, str]]:
    """Secrets and keys that pods refer to."""
    found = set()
    for _, container in containers(objects):
        for each in container.get("env", ()):
            if reference := each.get("valueFrom", {}).get("secretKeyRef"):
                found.add((reference["name"], reference["key"]))
    for _, template in pods(objects):
        for volume in template["spec"].get("volumes", ()):
            if "secret" in volume:
                found |= {(volume["secret"]["secretName"], item["key"]) for item in volume["secret"]["items"]}
    return found


@pytest.mark.parametrize("overlay", ["laptop", "production"])
def test_step_2_makes_every_secret_that_pods_refer_to(overlay: str, secrets: dict[str, dict[str, str]]) -> None:
    asked = wanted(render(ROOT / "infra/kustomize" / overlay))
    assert len(asked) >= 10
    assert not [(name, key) for name, key in asked if key not in secrets.get(name, {})]
    (login,) = json.loads(secrets["registry"][".dockerconfigjson"])["auths"].items()
    user, password, slack = TYPED.splitlines()
    assert (login[0], base64.b64decode(login[1]["auth"]).decode()) == ("registry.example.org", f"{user}:{password}")
    assert secrets["condswin-webhook"] == {"url": slack}


def test_secrets_fit_together(secrets: dict[str, dict[str, str]]) -> None:
    password = secrets["postgres"]["password"]
    assert re.fullmatch("[0-9a-f]{48}", password)
    assert secrets["mlflow"]["database-uri"] == f"postgresql+psycopg2://mlflow:{password}@postgres:5432/mlflow"
    assert f"database_uri = {secrets['mlflow']['database-uri']}\n" in secrets["mlflow"]["basic_auth.ini"]
    services, runs = json.loads(secrets["condswin-s3"]["s3.json"])["identities"]
    for name, identity in (("s3", services), ("s3-source", runs)):
        keys = {"accessKey": secrets[name]["AWS_ACCESS_KEY_ID"], "secretKey": secrets[name]["AWS_SECRET_ACCESS_KEY"]}
        assert identity["credentials"] == [keys]
    assert "Write" in services["actions"]
    # Whoever writes a pipeline has these keys, and not those of the backups.
    assert runs["actions"] == ["Read", "List"]
    assert len({*secrets["s3"].values(), *secrets["s3-source"].values()}) == 4
    assert len({*secrets["mlflow"].values(), secrets["mlflow-client"]["MLFLOW_TRACKING_PASSWORD"]}) == 6


def test_what_broke_off_is_made_by_another_paste_and_fits(tmp_path: Path) -> None:
    first, gone = make_secrets(tmp_path), {"mlflow", "s3-source", "condswin-s3"}
    for name in gone:
        (tmp_path / f"made/{name}.yaml").unlink()
    again = make_secrets(tmp_path)
    test_secrets_fit_together(again)
    assert again.keys() == first.keys()
    for name in first.keys() - gone:
        assert again[name] == first[name], name


def test_without_the_database_s_password_nothing_is_made_of_it(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    (tmp_path / "made/mlflow.yaml").unlink()
    (tmp_path / "made/postgres.yaml").write_text("data: {}\n")
    block = next(block for block in blocks("2. Secrets") if "URI=" in block)
    run(
        f"{KUBECTL}set +e\n{block[block.index('URI=') : block.index('k create secret generic mlflow-client')]}true",
        tmp_path,
    )
    assert not (tmp_path / "made/mlflow.yaml").exists()


def test_a_new_shell_without_the_keys_makes_no_secret_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    read(tmp_path)
    block = next(block for block in blocks("2. Secrets") if "URI=" in block)
    run(f"{KUBECTL}set +eu\n{block[block.index('[ ') :]}true", tmp_path)
    made = {each.stem for each in (tmp_path / "made").glob("*.yaml")}
    assert made == {"postgres", "mlflow", "mlflow-client", "condswin"}


def test_an_alias_of_the_persons_makes_nothing_else_of_a_function(tmp_path: Path) -> None:
    aliases = "shopt -s expand_aliases\nalias k='kubectl -n dev' secret=pass random=date forward='ssh -L'\n"
    called = "kubectl() { echo asked: $*; }\nk get pods\n"
    assert run(aliases + read(tmp_path) + called, tmp_path) == "asked: --namespace condswin get pods\n"


@pytest.mark.parametrize("says", ["return 1", ":"])
@pytest.mark.parametrize("role", ["as_admin", "as_runner"])
def test_without_a_key_no_credentials_are_set_at_all(role: str, says: str, tmp_path: Path) -> None:
    """With half of them, boto3 would take the person's own."""
    stub = f"""k() {{ case "$5" in *AWS_SECRET*) {says} ;; *) printf c2VjcmV0 ;; esac; }}\n"""
    said = run(f"{read(tmp_path)}{stub}if {role}; then echo all; fi; env", tmp_path).splitlines()
    assert "all" not in said
    assert not [line for line in said if line.startswith(("MLFLOW_TRACKING_PASSWORD=", "AWS_ACCESS_KEY_ID="))]


def test_a_forward_is_refused_where_another_listens_and_ends_with_its_shell(tmp_path: Path) -> None:
    reading = read(tmp_path)
    (tmp_path / "bin").mkdir()
    serve = f"echo $$ > asked\nexec {sys.executable} -m http.server --bind 127.0.0.1 $PORT\n"
    for name, script in (("kubectl", serve), ("dies", "echo 0 > asked\n")):
        (tmp_path / "bin" / name).write_text("#!/bin/bash\n" + script)
        (tmp_path / "bin" / name).chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        start = f"export PATH=$PWD/bin:$PATH PORT={port} http_proxy=http://127.0.0.1:9\n{reading}"
        forward = start + f"forward condswin service/mlflow {port}:5000"
        threading.Thread(target=lambda: other.accept()[0].close(), daemon=True).start()
        assert f"localhost:{port} is taken" in run(forward, tmp_path, fails=True)
        assert not (tmp_path / "asked").exists()
    run(forward, tmp_path)
    pid = int((tmp_path / "asked").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the port-forward outlives its shell"
        time.sleep(0.05)
    # One that ended, while another server came to its port.
    (tmp_path / "bin/dies").rename(tmp_path / "bin/kubectl")
    answers = "curl() { [ -e asked.once ] && sleep 0.5 && return 0; touch asked.once; return 7; }\n"
    said = run(start + answers + f"forward condswin service/mlflow {port}:5000", tmp_path, fails=True)
    assert f"localhost:{port} does not answer" in said


def test_no_secret_is_an_argument_or_in_a_file_or_in_the_history() -> None:
    """Arguments are everybody's to see on a machine; what the shell's own `printf` has are none."""
    text = re.sub(r"\\\n\s*", "", PAGE)
    assert not re.search(r"--from-literal=\S*\$|--docker-password|--token[= ]|curl [^|\n]*https://hooks", text)
    assert not re.search(r"(PASSWORD|SECRET|KEY|TOKEN)=(\.\.\.|[a-z0-9])", text)
    assert set(re.findall(r"--from-literal=(\S+)", text)) == {"admin-username=admin", "MLFLOW_TRACKING_USERNAME=runner"}
    assert not re.search(r"> \S+\.(ini|json)\b", text)
    # `read` takes what was pasted behind it.
    assert [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if block.startswith("typed ")]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        lines = block.splitlines()
        assert not [line for line in lines if line.startswith("typed ")] or len(lines) == 1
        assert all("paste up to here" in line for line in lines if line.startswith("read "))
