"""What is to be seen of servers: whether they answer, let one in, and agree about the time."""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import requests  # type: ignore[import-untyped]
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError
from mlflow.version import VERSION
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from condswin.config.root import Config
from condswin.doctor.finding import Finding
from condswin.errors import BadDataError, ConfigError
from condswin.registry.tracking import migrations, tracking_uri, without_password
from condswin.sources.keys import SCHEME
from condswin.sources.remote import address
from condswin.webhooks import stays_near

#: Seconds for a connection and for an answer.
TIMEOUT = (4.0, 8.0)
#: Of Kubeflow Pipelines: an older one tells no exit handler how a run ended.
OLDEST_KUBEFLOW = (2, 14)
#: Seconds that a clock may differ: until it is told, and until S3 refuses what it signs.
SKEW, REFUSED = 30.0, 900.0


def tracking(config: Config) -> Iterator[Finding]:
    """MLflow: its server, or its database."""
    try:
        uri = tracking_uri(config)
    except ConfigError as error:
        yield Finding("mlflow", "failed", str(error), "set MLFLOW_TRACKING_URI or tracking.uri")
        return
    if uri.startswith(("http://", "https://")):
        yield from _mlflow_server(uri.rstrip("/"))
    else:
        yield _database(uri)


def _mlflow_server(uri: str) -> Iterator[Finding]:
    place = without_password(uri)
    answer = _get(f"{uri}/version")
    if isinstance(answer, str) or answer.status_code >= 500:
        said = answer if isinstance(answer, str) else f"answers {answer.status_code}"
        yield Finding("mlflow", "failed", f"{place}: {said}", "start it, or set MLFLOW_TRACKING_URI to another")
        return
    yield from _clock("mlflow", answer.headers)
    number = answer.text.strip()
    if answer.status_code == 200 and not re.fullmatch(r"\d+\.\d+\.[\w.]{1,20}", number):
        mend = "check the address, and what stands before the server"
        yield Finding("mlflow", "failed", f"{place}: what answers is not MLflow (a login page?)", mend)
        return
    if answer.status_code == 200 and number.split(".")[:2] != VERSION.split(".")[:2]:
        mend = "use the same version on both sides"
        yield Finding("mlflow version", "warning", f"the server has {number}, here is {VERSION}", mend)
    user, token = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_TOKEN")
    given = bool(user or token or urlsplit(uri).username)
    if given and not stays_near(uri):
        mend = "use https, or a port-forward"
        yield Finding("mlflow", "failed", f"{place} would get the password in the clear", mend)
        return
    headers = {"Authorization": f"Bearer {token}"} if token and not user else {}
    basic = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
    answer = _get(f"{uri}/api/2.0/mlflow/registered-models/search?max_results=1", headers=headers, auth=basic)
    if isinstance(answer, str) or answer.status_code != 200 or _json(answer) is None:
        said = answer if isinstance(answer, str) else f"answers {answer.status_code} to a search of models"
        mend = "look at the server's log"
        if not isinstance(answer, str) and answer.status_code in (401, 403):
            mend = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" + (" anew" if given else "")
        yield Finding("mlflow", "failed", f"{place}: {said}", mend)
    elif not given and urlsplit(uri).hostname not in ("localhost", "127.0.0.1", "::1"):
        mend = "start it with --app-name basic-auth (docs/how-to/cluster.md): who reaches it can run code there"
        yield Finding("mlflow", "warning", f"{place} asks nobody for a password", mend)
    else:
        yield Finding("mlflow", "ok", f"{place} answers" + (", and takes the credentials" if given else ""))


def _database(uri: str) -> Finding:
    place, url = without_password(uri), make_url(uri)
    options: dict[str, Any] = {"connect_args": {"connect_timeout": int(TIMEOUT[0])}}
    if url.drivername == "sqlite":
        file = Path(url.database or "")
        if not file.exists():
            parent = next(each for each in file.parents if each.exists())
            if os.access(parent, os.W_OK):
                return Finding("mlflow", "ok", f"{place}: made by the first run")
            return Finding("mlflow", "failed", f"{place}: {parent} is not writable", "set MLFLOW_TRACKING_URI")
        # Read alone: a look must not make a database of what is none.
        uri, options = f"sqlite:///file:{file}?mode=ro&uri=true", {}
    try:
        engine = create_engine(uri, poolclass=NullPool, **options)
        with engine.connect() as connection:
            tables = inspect(connection).get_table_names()
            known = "alembic_version" in tables
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if known else None
    except (SQLAlchemyError, ImportError, OSError) as error:
        refused = "password" in str(getattr(error, "orig", "")).lower()
        said = "refuses the password" if refused else f"does not answer ({type(error).__name__})"
        return Finding("mlflow", "failed", f"{place}: {said}", "check the address, the password, and the server")
    if found is None:
        if tables:
            return Finding("mlflow", "failed", f"{place}: the tables there are not MLflow's", "name another database")
        return Finding("mlflow", "ok", f"{place}: empty; tables are made by the first run")
    if found == migrations().get_current_head():
        return Finding("mlflow", "ok", f"{place}: tables of MLflow {VERSION}")
    if found in {each.revision for each in migrations().walk_revisions()}:
        mend = "stop what uses it, save it, then: mlflow db upgrade URI"
        return Finding("mlflow", "failed", f"{place}: tables of an older MLflow than {VERSION}", mend)
    mend = "install the MLflow that made them, or restore an older backup"
    return Finding("mlflow", "failed", f"{place}: tables of a newer MLflow than {VERSION}", mend)


def s3(config: Config) -> Iterator[Finding]:
    """Sources and DVC remote in S3: a listing, and a byte of what is listed, with the keys of the environment."""
    places, bad = _in_s3(config)
    yield from bad
    if not places:
        if not bad:
            yield Finding("s3", "not used", "neither source nor DVC remote is in S3")
        return
    settings = BotoConfig(connect_timeout=TIMEOUT[0], read_timeout=TIMEOUT[1], retries={"total_max_attempts": 1})
    mend = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            yield Finding("s3", "failed", "no credentials are set", mend)
            return
        client = session.client("s3", config=settings)
    except (BotoCoreError, ValueError) as error:
        yield Finding("s3", "failed", f"no client ({type(error).__name__})", "check AWS_ENDPOINT_URL and AWS_PROFILE")
        return
    for number, (place, within) in enumerate(places.items()):
        bucket, _, prefix = within.removeprefix("s3://").partition("/")
        try:
            listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
            if number == 0:
                yield from _clock("s3", listed["ResponseMetadata"]["HTTPHeaders"])
            if not listed.get("Contents"):
                if place not in {config.task(name).source for name in config.present}:
                    yield Finding("s3", "ok", f"{place}: listed; nothing is there yet")
                else:
                    yield Finding("s3", "failed", f"{place}: nothing is there", "check bucket and prefix")
                continue
            if listed["Contents"][0]["Size"]:
                key = listed["Contents"][0]["Key"]
                client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].read()
        except ClientError as error:
            metadata = error.response.get("ResponseMetadata", {})
            if number == 0:
                yield from _clock("s3", metadata.get("HTTPHeaders", {}))
            code = str(error.response.get("Error", {}).get("Code", ""))
            said = code if re.fullmatch(r"[A-Za-z0-9]{1,40}", code) else str(metadata.get("HTTPStatusCode", "error"))
            what = "check the bucket's name" if said == "NoSuchBucket" else f"{mend} to keys that may list and read it"
            yield Finding("s3", "failed", f"{place}: refused ({said})", what)
        except (BotoCoreError, KeyError) as error:
            said = f"{place}: no answer ({type(error).__name__})"
            yield Finding("s3", "failed", said, "check AWS_ENDPOINT_URL, and the server")
        else:
            yield Finding("s3", "ok", f"{place}: listed and read")


def _in_s3(config: Config) -> tuple[dict[str, str], list[Finding]]:
    """Where to look, by what the parameters call it; and what is wrong with the addresses themselves."""
    places, bad = {}, []
    for source in sorted({config.task(name).source for name in config.present}):
        if source.startswith("s3://"):
            places[source] = source
        elif source.startswith(SCHEME):
            try:
                remote, md5 = address(source)
            except BadDataError as error:
                bad.append(Finding("s3", "failed", str(error), "set `source`"))
                continue
            if remote.startswith("s3://"):
                # The layout of DVC 3.
                places[source] = f"{remote.rstrip('/')}/files/md5/{md5[:2]}/{md5[2:]}"
    if (remote := config.cluster.dvc_remote).startswith("s3://"):
        places[remote] = remote
    return places, bad


def kubeflow() -> Iterator[Finding]:
    """Kubeflow's API, as `python -m pipelines submit` reaches it."""
    host = os.environ.get("KFP_HOST", "").rstrip("/")
    if not host:
        yield Finding("kubeflow", "not used", "KFP_HOST is not set")
        return
    token, place = os.environ.get("KFP_TOKEN", "").strip(), without_password(host)
    if file := os.environ.get("KF_PIPELINES_SA_TOKEN_PATH"):
        try:
            token = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            said = f"{file}: {type(error).__name__}"
            yield Finding("kubeflow", "failed", said, "mount the token, or unset KF_PIPELINES_SA_TOKEN_PATH")
            return
    if token and not stays_near(host):
        mend = "use https, or a port-forward"
        yield Finding("kubeflow", "failed", f"{place} would get the token in the clear", mend)
        return
    namespace = os.environ.get("KFP_NAMESPACE", "")
    answer = _get(
        f"{host}/apis/v2beta1/experiments",
        params={"page_size": "1", **({"namespace": namespace} if namespace else {})},
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )
    if isinstance(answer, str):
        yield Finding("kubeflow", "failed", f"{place}: {answer}", "check KFP_HOST; is the port-forward running?")
        return
    yield from _clock("kubeflow", answer.headers)
    if answer.status_code == 200 and isinstance(_json(answer), dict):
        yield Finding("kubeflow", "ok", f"{place} lists experiments" + (f" of {namespace}" if namespace else ""))
        yield from _kubeflow_version(host, token)
    elif answer.status_code == 200 or answer.is_redirect:
        mend = "check KFP_HOST, and give a token by KFP_TOKEN"
        yield Finding("kubeflow", "failed", f"{place}: what answers is not the API (a login page?)", mend)
    else:
        mends = {
            400: "set KFP_NAMESPACE to the profile of a Kubeflow with users, and to nothing for one without",
            401: "give a token by KFP_TOKEN",
            403: "set KFP_NAMESPACE, or ask for rights",
        }
        said = f"{place}: answers {answer.status_code} to a listing of experiments"
        yield Finding("kubeflow", "failed", said, mends.get(answer.status_code, "look at ml-pipeline's log"))


def _kubeflow_version(host: str, token: str) -> Iterator[Finding]:
    """What the user interface tells of its version, which the API itself does not: nothing if that is new enough.

    `frontend/server/handlers/healthz.ts` of kubeflow/pipelines at 0029bf50.
    """
    answer = _get(f"{host}/apis/v2beta1/healthz", headers={"Authorization": f"Bearer {token}"} if token else {})
    told = None if isinstance(answer, str) or answer.status_code != 200 else _json(answer)
    number = (
        re.match(r"v?(\d{1,4})\.(\d{1,4})(?!\d)", str(told.get("frontendTagName"))) if isinstance(told, dict) else None
    )
    if number and (int(number[1]), int(number[2])) < OLDEST_KUBEFLOW:
        oldest = ".".join(map(str, OLDEST_KUBEFLOW))
        said = f"Kubeflow Pipelines {number[1]}.{number[2]}, and runs need {oldest} or newer"
        yield Finding("kubeflow version", "failed", said, "have it upgraded")


def _get(url: str, **options: Any) -> requests.Response | str:
    """The answer, or in a few words why there is none."""
    try:
        return requests.get(url, timeout=TIMEOUT, allow_redirects=False, **options)
    except (requests.RequestException, ValueError) as error:
        return f"does not answer ({type(error).__name__})"


def _json(answer: requests.Response) -> Any:
    try:
        return json.loads(answer.text)
    except ValueError:
        return None


def _clock(name: str, headers: Mapping[str, str]) -> Iterator[Finding]:
    """What a server's Date says about the clock here; nothing if it is right, or not told."""
    try:
        off = parsedate_to_datetime(headers.get("Date") or headers.get("date") or "").timestamp() - time.time()
    except (ValueError, TypeError):
        return
    if abs(off) > SKEW:
        state, mend = "failed" if abs(off) > REFUSED else "warning", "set both clocks by NTP: timedatectl set-ntp true"
        side = "behind" if off > 0 else "ahead of"
        yield Finding(f"{name} clock", state, f"this machine's is {abs(off):.0f} s {side} the server's", mend)  # type: ignore[arg-type]
