"""A control plane of Kubernetes on loopback: etcd, API server, controllers and scheduler, without anything to run pods.

Whoever asks is known by a certificate, or by the token of a service account, and RBAC says what they may.
"""

import datetime as dt
import ipaddress
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kubernetes import client
from urllib3.exceptions import HTTPError

from tests.services.conftest import free_ports, stop, wait_until

#: Where `make kube-binaries` puts them.
BINARIES = Path(
    os.environ.get("KUBE_BINARIES")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "condswin-test", "kube")
)
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
#: Node's controller is off: it would take nodes without a kubelet for dead. The one for finished Jobs came later.
_CONTROLLERS, _GATES = "*,-nodelifecycle", "TTLAfterFinished=true"
_SCHEDULER, _MANAGER = "system:kube-scheduler", "system:kube-controller-manager"


class _Authority:
    """Certificates that the server trusts, and its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = _named("condswin-test")
        usage = x509.BasicConstraints(ca=True, path_length=None)
        self._write("ca", self._key, self._sign(self._name, self._key, usage))

    def issue(self, name: str, group: str = "", *, server: bool = False) -> None:
        """Writes NAME.crt and NAME.key."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = [ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH]
        extensions: list[x509.ExtensionType] = [x509.ExtendedKeyUsage(usage)]
        if server:
            extensions.append(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]))
        self._write(name, key, self._sign(_named(name, group), key, *extensions))

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        made = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=1))
        for extension in extensions:
            made = made.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return made.sign(self._key, hashes.SHA256())

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        pem = serialization.Encoding.PEM
        (self._folder / f"{name}.crt").write_bytes(certificate.public_bytes(pem))
        # PKCS 8 is not what the server reads keys of accounts from.
        form = serialization.PrivateFormat.TraditionalOpenSSL
        (self._folder / f"{name}.key").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))


def _named(name: str, group: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    return x509.Name(parts + ([x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []))


@dataclass
class ControlPlane:
    """A control plane, its files and its processes."""

    folder: Path
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, definitions: list[dict[str, Any]]) -> None:
        """Starts the servers.

        Args:
            definitions: Of kinds that controllers are to know from their start.
        """
        authority = _Authority(self.folder)
        authority.issue("server", server=True)
        authority.issue("admin", "system:masters")
        for name in (_SCHEDULER, _MANAGER, "accounts"):
            authority.issue(name)
        etcd, peer, self._port, manager, scheduler = free_ports(5)
        self._run_etcd(etcd, peer)
        self._run_server(etcd)
        for definition in definitions:
            self.kubectl("apply", "--validate=false", "-f", "-", given=definition)
        self.kubectl("wait", "--for=condition=established", "--timeout=60s", "crd", "--all")
        accounts = (f"--service-account-private-key-file={self._file('accounts.key')}",
                    f"--root-ca-file={self._file('ca.crt')}", "--use-service-account-credentials")  # fmt: skip
        self._run_client(
            "kube-controller-manager", _MANAGER, manager, *accounts, f"--controllers={_CONTROLLERS}",
            f"--feature-gates={_GATES}",
        )  # fmt: skip
        self._run_client("kube-scheduler", _SCHEDULER, scheduler)

    def stop(self) -> None:
        for process in reversed(self._processes):
            stop(process)

    def api(self, token: str = "") -> client.ApiClient:
        """A client of an account's token, or the administrator's."""
        settings = client.Configuration(host=f"https://127.0.0.1:{self._port}")
        settings.ssl_ca_cert, settings.proxy = self._file("ca.crt"), None
        if token:
            settings.api_key = {"authorization": f"Bearer {token}"}
        else:
            settings.cert_file, settings.key_file = self._file("admin.crt"), self._file("admin.key")
        return client.ApiClient(settings)

    def token(self, account: str, namespace: str) -> str:
        """A token as the pods of an account have one."""
        core = client.CoreV1Api(self.api())
        asked = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        return str(core.create_namespaced_service_account_token(account, namespace, asked).status.token)

    def kubectl(self, *arguments: str, given: Any = None, token: str = "", fails: bool = False) -> str:
        """What kubectl says.

        Args:
            arguments: Of kubectl.
            given: Objects for its standard input.
            token: Whose it is; the administrator's by default.
            fails: It is to fail; what it says then is returned.
        """
        done = subprocess.run(
            [Path(sys.executable).with_name("kubectl"), f"--kubeconfig={self._config('admin', token)}", *arguments],
            input=None if given is None else yaml.safe_dump_all(given if isinstance(given, list) else [given]),
            capture_output=True,
            text=True,
            timeout=120,
            env={"HOME": str(self.folder), "PATH": os.environ["PATH"]},
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    def _run_etcd(self, port: int, peer: int) -> None:
        here, there = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
        self._run(
            "etcd", f"--data-dir={self.folder / 'etcd'}", f"--listen-client-urls={here}", f"--listen-peer-urls={there}",
            f"--advertise-client-urls={here}", f"--initial-advertise-peer-urls={there}",
            f"--initial-cluster=default={there}",
        )  # fmt: skip

    def _run_server(self, etcd: int) -> None:
        log = self._run(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1",
            f"--secure-port={self._port}", f"--tls-cert-file={self._file('server.crt')}",
            f"--tls-private-key-file={self._file('server.key')}", f"--client-ca-file={self._file('ca.crt')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self._file('accounts.key')}",
            f"--service-account-key-file={self._file('accounts.key')}", "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/24", "--endpoint-reconciler-type=none", f"--feature-gates={_GATES}",
        )  # fmt: skip
        self._wait(self._answers, "kube-apiserver", log)

    def _answers(self) -> bool:
        try:
            client.CoreV1Api(self.api()).read_namespace("default", _request_timeout=5)
            return bool(client.RbacAuthorizationV1Api(self.api()).read_cluster_role("system:kube-scheduler"))
        except (client.ApiException, HTTPError):
            return False

    def _run_client(self, program: str, user: str, port: int, *arguments: str) -> None:
        self._run(
            program, f"--kubeconfig={self._config(user)}", "--bind-address=127.0.0.1", f"--secure-port={port}",
            "--port=0", f"--cert-dir={self.folder / program}-cert", "--leader-elect=false", *arguments,
        )  # fmt: skip

    def _run(self, program: str, *arguments: str) -> Path:
        log = self.folder / f"{program}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [str(BINARIES / program), *arguments], stdout=file, stderr=file, cwd=self.folder, start_new_session=True
            )
        self._processes.append(process)
        return log

    def _wait(self, ready: Callable[[], bool], what: str, log: Path) -> None:
        process = self._processes[-1]

        def ready_or_dead() -> bool:
            assert process.poll() is None, log.read_text()[-3000:]
            return ready()

        wait_until(ready_or_dead, what, log)

    def _config(self, user: str, token: str = "") -> Path:
        who = {"token": token} if token else {
            "client-certificate": self._file(f"{user}.crt"), "client-key": self._file(f"{user}.key")
        }  # fmt: skip
        cluster = {"server": f"https://127.0.0.1:{self._port}", "certificate-authority": self._file("ca.crt")}
        written = self.folder / ("token.yaml" if token else f"{user}.yaml")
        written.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}], "users": [{"name": "here", "user": who}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
        }))  # fmt: skip
        return written

    def _file(self, name: str) -> str:
        return str(self.folder / name)
