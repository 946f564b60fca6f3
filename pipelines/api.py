"""The API of a Kubeflow backend: reads that are repeated, and writes that are sent once."""

import json
import os
import time
from collections.abc import Callable, Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import kfp_server_api as kfp
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from condswin.errors import CondswinError, ConfigError
from condswin.plain import plain
from condswin.webhooks import stays_near

T = TypeVar("T")
#: Seconds for a connection, and without a byte of an answer.
TIMEOUT = (10, 30)
#: Seconds before a read is sent again, and before one looks again for what a lost answer may have made.
PAUSES = (1.0, 2.0, 4.0, 8.0)
#: A server says so before it does anything.
_TURNED_AWAY = (429, 503)
#: Kubeflow's experiment, unless another is named.
EXPERIMENT = "condswin"
ACTIVE = (None, "RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "PAUSED", "CANCELING")


class BackendError(CondswinError):
    """The backend is not there, or refuses, or says what is no answer; one line, with the address."""


class _LostError(Exception):
    """A request may or may not have had its effect."""


class _TurnedAwayError(Exception):
    """A request had no effect, and may be sent again."""


class _Answers(kfp.ApiClient):
    """Reads JSON objects and nothing else: a gateway answers with pages, and with status 200."""

    def deserialize(self, response: Any, response_type: Any) -> Any:
        try:
            values = json.loads(response.data)
            if not isinstance(values, dict):
                raise ValueError
            return super().deserialize(response, response_type)
        except (ValueError, TypeError, AttributeError, KeyError):
            raise _NoAnswerError from None


class _NoAnswerError(Exception):
    """Something else than the API answered."""


def token_from(file: Path | None) -> str:
    """The token for the API: of a file, else of KFP_TOKEN; empty for none.

    Raises:
        ConfigError: The file cannot be read, or holds no token.
    """
    if file is None:
        return os.environ.get("KFP_TOKEN", "").strip()
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {file}: not readable: {type(error).__name__}") from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"--token-file {file}: holds no token, which is one word; write it anew")
    return token


class Backend:
    """A Kubeflow backend.

    Args:
        host: Its address, `https://host/pipeline` or `http://localhost:8080`.
        token: Sent as a bearer token; not in the clear, unless the server is this machine or of the same cluster.
        namespace: Of a backend for many users; empty for one without users.

    Raises:
        ConfigError: The address is none, or a token would be sent in the clear.
        BackendError: From all methods.
    """

    def __init__(self, host: str, *, token: str = "", namespace: str = "") -> None:
        parts = urlsplit(host)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ConfigError("KFP_HOST (or --host): give an address like https://kubeflow.example.org/pipeline")
        if token and not stays_near(host):
            raise ConfigError(f"KFP_HOST: {host} would get the token in the clear; use https, or a port-forward")
        self.host, self.namespace = host.rstrip("/"), namespace
        settings = kfp.Configuration(host=self.host)
        settings.retries = False  # urllib3's own would send a creation again
        settings.ssl_ca_cert = os.environ.get("SSL_CERT_FILE")
        if token:
            settings.api_key = {"authorization": token}
            settings.api_key_prefix = {"authorization": "Bearer"}
        client = _Answers(settings)
        self._runs, self._experiments = kfp.RunServiceApi(client), kfp.ExperimentServiceApi(client)
        self._recurring = kfp.RecurringRunServiceApi(client)

    def link(self, run_id: str) -> str:
        """Where people look at a run."""
        return f"{self.host}/#/runs/details/{run_id}"

    def experiment(self, name: str, *, create: bool = True) -> str | None:
        """The id of an experiment, made if it is not there; None if it is not and shall not be made."""

        def find() -> list[kfp.V2beta1Experiment]:
            return self._all(
                self._experiments.experiment_service_list_experiments, "experiments", filter=_named(name), **self._of()
            )

        found = find()
        if not found and create:
            body = kfp.V2beta1Experiment(display_name=name, **self._of())
            found = [
                self._once(
                    lambda: self._experiments.experiment_service_create_experiment(body, _request_timeout=TIMEOUT),
                    find,
                    known=(),
                    what=f"the experiment {name!r}",
                )
            ]
        if found and found[0].storage_state == "ARCHIVED":
            raise BackendError(
                f"experiment {name!r} is archived at {self.host}: restore it there, or give --experiment"
            )
        return str(found[0].experiment_id) if found else None

    def runs(
        self, experiment: str | None, *, name: str = "", newest: int = 0, archived: bool = False
    ) -> list[kfp.V2beta1Run]:
        """Runs that are not archived, unless those are asked for too, newest first: all, or so many, or of a name."""
        chosen: dict[str, str] = {"experiment_id": experiment} if experiment else self._of()
        if name:
            chosen["filter"] = _named(name)
        runs = self._all(self._runs.run_service_list_runs, "runs", at_most=newest, sort_by="created_at desc", **chosen)
        return [run for run in runs if archived or run.storage_state != "ARCHIVED"]

    def run(self, run_id: str) -> kfp.V2beta1Run:
        """A run as it is."""
        return self._read(lambda: self._runs.run_service_get_run(run_id, _request_timeout=TIMEOUT))

    def start(self, run: kfp.V2beta1Run, *, again: bool = True) -> tuple[kfp.V2beta1Run, bool]:
        """Starts a run, unless one of its name is under way; returns that one, and whether it was so.

        Not `again`: nor if there ever was one of its name, whatever became of it, archived or not.
        """

        def find() -> list[kfp.V2beta1Run]:
            return self.runs(run.experiment_id, name=run.display_name, archived=not again)

        known = find()
        if before := [each for each in known if not again or each.state in ACTIVE]:
            return before[0], True
        started = self._once(
            lambda: self._runs.run_service_create_run(run, _request_timeout=TIMEOUT),
            find,
            known=[each.run_id for each in known],
            what=f"the run {run.display_name!r}",
        )
        return started, False

    def cancel(self, run_id: str) -> None:
        """Ends a run; a second time changes nothing."""
        self._read(lambda: self._runs.run_service_terminate_run(run_id, _request_timeout=TIMEOUT))

    def recurring(self, experiment: str) -> list[kfp.V2beta1RecurringRun]:
        """All recurring runs of an experiment."""
        return self._all(
            self._recurring.recurring_run_service_list_recurring_runs, "recurring_runs", experiment_id=experiment
        )

    def schedule(self, recurring: kfp.V2beta1RecurringRun) -> None:
        """Makes a recurring run; none of its name and description must be there."""
        self._once(
            lambda: self._recurring.recurring_run_service_create_recurring_run(recurring, _request_timeout=TIMEOUT),
            lambda: [
                each
                for each in self.recurring(recurring.experiment_id)
                if (each.display_name, each.description) == (recurring.display_name, recurring.description)
            ],
            known=(),
            what=f"the schedule {recurring.display_name!r}",
        )

    def enable(self, recurring_run_id: str, enabled: bool) -> None:
        """Switches a recurring run on or off."""
        api = self._recurring
        switch = (
            api.recurring_run_service_enable_recurring_run
            if enabled
            else api.recurring_run_service_disable_recurring_run
        )
        self._read(lambda: switch(recurring_run_id, _request_timeout=TIMEOUT))

    def unschedule(self, recurring_run_id: str) -> None:
        """Removes a recurring run; that it is gone already is no error."""
        self._read(
            lambda: self._recurring.recurring_run_service_delete_recurring_run(
                recurring_run_id, _request_timeout=TIMEOUT
            ),
            gone=True,
        )

    def _of(self) -> dict[str, str]:
        return {"namespace": self.namespace} if self.namespace else {}

    def _all(self, listing: Callable[..., Any], field: str, *, at_most: int = 0, **chosen: str) -> list[Any]:
        found: list[Any] = []
        page, pages = "", set()
        while page not in pages:
            pages.add(page)
            answer = self._read(
                lambda page=page: listing(
                    page_size=min(at_most, 100) or 100,
                    **({"page_token": page} if page else {}),
                    **chosen,
                    _request_timeout=TIMEOUT,
                )
            )
            found += getattr(answer, field) or []
            page = answer.next_page_token or ""
            if not page or (at_most and len(found) >= at_most):
                break
        return found[:at_most] if at_most else found

    def _read(self, ask: Callable[[], T], *, gone: bool = False) -> T | None:
        """Asks for what may be asked for twice: reads, and changes that a second time changes nothing."""
        reason = ""
        for pause in (*PAUSES, None):
            try:
                return self._sent(ask, gone=gone)
            except (_LostError, _TurnedAwayError) as error:
                reason = str(error)
            if pause is not None:
                time.sleep(pause)
        raise BackendError(f"{self.host}: {reason}, {len(PAUSES) + 1} times; check KFP_HOST, and the server") from None

    def _once(self, make: Callable[[], T], find: Callable[[], Iterable[Any]], *, known: Iterable[str], what: str) -> T:
        """Makes something, once: what is lost on its way is looked for, and never made again."""
        reason = ""
        for pause in (*PAUSES, None):
            try:
                return self._sent(make)
            except _TurnedAwayError as error:
                reason = str(error)
                if pause is not None:
                    time.sleep(pause)
            except _LostError as error:
                for look in PAUSES:
                    time.sleep(look)
                    if new := [each for each in find() if _id(each) not in known]:
                        return new[0]
                raise BackendError(
                    f"{self.host}: {error} while {what} was made, and it is not there; run the same command again: it "
                    "goes on with one that is made meanwhile"
                ) from None
        raise BackendError(f"{self.host}: {reason}; {what} was not made; check KFP_HOST, and the server")

    def _sent(self, ask: Callable[[], T], *, gone: bool = False) -> T | None:
        try:
            return ask()
        except kfp.ApiException as error:
            status = error.status
            if status == 404 and gone:
                return None
            said = f"answers {status} {plain(error.reason, 60)}{_message(error.body)}"
            if status in _TURNED_AWAY:
                raise _TurnedAwayError(said) from None
            if status == 0:
                raise BackendError(
                    f"{self.host}: TLS fails: {plain(error.reason, 200)}; SSL_CERT_FILE names certificates to trust"
                ) from None
            if status >= 500:
                raise _LostError(said) from None
            raise BackendError(f"{self.host}: {said}{_mend(status)}") from None
        except _NoAnswerError:
            raise BackendError(
                f"{self.host}: what answers is not the API of Kubeflow Pipelines (a login page?); check KFP_HOST, and "
                "give a token by KFP_TOKEN or --token-file"
            ) from None
        except (NewConnectionError, ConnectTimeoutError) as error:
            raise _TurnedAwayError(f"no connection ({type(error).__name__})") from None
        except (HTTPError, HTTPException, OSError) as error:
            raise _LostError(f"the answer was lost ({type(error).__name__})") from None


def _id(made: Any) -> str:
    return str(getattr(made, "run_id", "") or getattr(made, "recurring_run_id", "") or made.experiment_id)


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]})


def _message(body: Any) -> str:
    try:
        said = json.loads(body)
        text = said.get("message") or said.get("error") or ""
    except (ValueError, TypeError, AttributeError):
        return ""
    return f": {plain(text, 200)}" if text else ""


def _mend(status: int) -> str:
    return {
        401: "; give a token that is valid by KFP_TOKEN or --token-file",
        403: "; the token's account may not do this in the namespace (--namespace, docs/how-to/cluster.md)",
        404: "; check the id, --namespace and KFP_HOST",
    }.get(status, "")
