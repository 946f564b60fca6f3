"""A Kubeflow Pipelines API on loopback, made from `kfp-server-api`: its paths, parameters and models.

Each request is held against them: a path, a parameter, a key or a type that the client's own models do not have is
answered with 400 and kept in `problems`. What it does is what the backend does for experiments, runs and recurring
runs, no more. Faults can be planned by operation, before or after it has its effect.
"""

import inspect
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import kfp_server_api as kfp

APIS = (kfp.ExperimentServiceApi, kfp.RunServiceApi, kfp.RecurringRunServiceApi)
PLAIN = {"str": str, "object": object, "bool": bool, "int": int, "float": float, "datetime": str}


@dataclass(frozen=True)
class Operation:
    name: str
    method: str
    path: re.Pattern[str]
    query: frozenset[str]
    body: str | None


def operations() -> list[Operation]:
    """What the client can ask for, read off its own code."""
    found = []
    for api in APIS:
        for name, function in inspect.getmembers(api, inspect.isfunction):
            if not name.endswith("_with_http_info"):
                continue
            source = inspect.getsource(function)
            path, method = re.search(r"'(/apis/[^']+)', '([A-Z]+)'", source).groups()
            body = re.search(r"body_params = local_var_params\['(\w+)'\]", source)
            kind = re.search(rf":type {body[1]}: (\w+)", source)[1] if body else None
            query = frozenset(re.findall(r"query_params\.append\(\('([\w.]+)'", source))
            pattern = re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/:]+)", re.escape(path)))
            found.append(Operation(name.removesuffix("_with_http_info"), method, pattern, query, kind))
    return found


def problems_of(kind: str, value: Any, place: str) -> Iterator[str]:
    """What of a JSON value is not as a model's declaration says."""
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{place}: no list"
        else:
            for number, each in enumerate(value):
                yield from problems_of(match[1], each, f"{place}[{number}]")
    elif match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            yield f"{place}: no mapping"
        else:
            for key, each in value.items():
                yield from problems_of(match[1], each, f"{place}.{key}")
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]):
            yield f"{place}: {value!r} is no {kind}"
    else:
        model = getattr(kfp, kind)
        known = {model.attribute_map[name]: type_ for name, type_ in model.openapi_types.items()}
        if not known:
            if value not in model.allowable_values:
                yield f"{place}: {value!r} is no {kind}"
        elif not isinstance(value, dict):
            yield f"{place}: no {kind}"
        else:
            for key, each in value.items():
                if key not in known:
                    yield f"{place}.{key}: no such key"
                else:
                    yield from problems_of(known[key], each, f"{place}.{key}")


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


Fault = Callable[["Handler", Callable[[], None]], None]


@dataclass
class Stub:
    """The backend's state; `requests` are operations in order, `problems` what was wrong about them."""

    url: str = ""
    token: str = ""
    multi_user: bool = False
    page: int = 2
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    faults: dict[str, Iterator[Fault]] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, operation: str, *faults: Fault) -> None:
        self.faults[operation] = iter(faults)

    def count(self, operation: str) -> int:
        return self.requests.count(operation)

    def answer(self, operation: Operation, ids: dict[str, str], query: dict[str, str], body: Any) -> Any:
        with self.lock:
            return getattr(self, operation.name)(ids, query, body)

    def _made(self, kind: dict[str, dict[str, Any]], key: str, body: dict[str, Any]) -> dict[str, Any]:
        self.made[key] = number = self.made.get(key, 0) + 1
        body = {**body, key: f"{key}-{number}", "created_at": _when(number)}
        kind[body[key]] = body
        return body

    def _one(self, kind: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
        if name not in kind:
            raise RefusedError(404, f"{name} not found")
        return kind[name]

    def _page(self, field_: str, found: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        if "filter" in query:
            (predicate,) = json.loads(query["filter"])["predicates"]
            found = [each for each in found if each[predicate["key"]] == predicate["string_value"]]
        begin, size = int(query.get("page_token", 0)), min(self.page, int(query.get("page_size", 10)))
        rest = {"next_page_token": str(begin + size)} if begin + size < len(found) else {}
        return {field_: found[begin : begin + size], "total_size": len(found), **rest}

    def _require_namespace(self, query: dict[str, str]) -> None:
        if self.multi_user and not query.get("namespace"):
            raise RefusedError(400, "Invalid input error: In multi-user mode, namespace is required")

    def experiment_service_list_experiments(self, _: Any, query: dict[str, str], __: Any) -> Any:
        self._require_namespace(query)
        return self._page("experiments", list(self.experiments.values()), query)

    def experiment_service_create_experiment(self, _: Any, __: Any, body: dict[str, Any]) -> Any:
        self._require_namespace(body)
        if any(each["display_name"] == body["display_name"] for each in self.experiments.values()):
            raise RefusedError(409, f"Already exist error: experiment {body['display_name']}")
        return self._made(self.experiments, "experiment_id", {"storage_state": "AVAILABLE", **body})

    def run_service_list_runs(self, _: Any, query: dict[str, str], __: Any) -> Any:
        if "experiment_id" not in query:
            self._require_namespace(query)
        chosen = [
            each for each in self.runs.values() if query.get("experiment_id") in (None, each.get("experiment_id"))
        ]
        return self._page("runs", sorted(chosen, key=lambda run: run["created_at"], reverse=True), query)

    def run_service_get_run(self, ids: dict[str, str], _: Any, __: Any) -> Any:
        return self._one(self.runs, ids["run_id"])

    def run_service_create_run(self, _: Any, __: Any, body: dict[str, Any]) -> Any:
        self._one(self.experiments, body["experiment_id"])
        self._require_pipeline(body)
        return self._made(self.runs, "run_id", {"state": "PENDING", "storage_state": "AVAILABLE", **body})

    def run_service_terminate_run(self, ids: dict[str, str], _: Any, __: Any) -> Any:
        self._one(self.runs, ids["run_id"])["state"] = "CANCELED"
        return {}

    def recurring_run_service_list_recurring_runs(self, _: Any, query: dict[str, str], __: Any) -> Any:
        chosen = [each for each in self.recurring.values() if each["experiment_id"] == query["experiment_id"]]
        return self._page("recurringRuns", chosen, query)

    def recurring_run_service_create_recurring_run(self, _: Any, __: Any, body: dict[str, Any]) -> Any:
        self._one(self.experiments, body["experiment_id"])
        self._require_pipeline(body)
        if not 1 <= int(body.get("max_concurrency") or 0) <= 10:
            raise RefusedError(400, "Invalid input error: max_concurrency must be in [1, 10]")
        status = f"{body['mode']}D"
        return self._made(self.recurring, "recurring_run_id", {**body, "status": status})

    def recurring_run_service_enable_recurring_run(self, ids: dict[str, str], _: Any, __: Any) -> Any:
        self._one(self.recurring, ids["recurring_run_id"]).update(mode="ENABLE", status="ENABLED")
        return {}

    def recurring_run_service_disable_recurring_run(self, ids: dict[str, str], _: Any, __: Any) -> Any:
        self._one(self.recurring, ids["recurring_run_id"]).update(mode="DISABLE", status="DISABLED")
        return {}

    def recurring_run_service_delete_recurring_run(self, ids: dict[str, str], _: Any, __: Any) -> Any:
        self._one(self.recurring, ids["recurring_run_id"])
        del self.recurring[ids["recurring_run_id"]]
        return {}

    def _require_pipeline(self, body: dict[str, Any]) -> None:
        spec = body["pipeline_spec"]
        spec = spec.get("pipeline_spec", spec)
        if not {"pipelineInfo", "root", "deploymentSpec", "components", "schemaVersion"} <= spec.keys():
            raise RefusedError(400, "Invalid input error: no pipeline")


def _when(number: int) -> str:
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)).isoformat()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def handle_request(self) -> None:
        stub, parts = self.server.stub, urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for operation in OPERATIONS:
            match = operation.path.fullmatch(parts.path)
            if match and operation.method == self.command:
                break
        else:
            stub.problems.append(f"{self.command} {parts.path}: no such operation")
            self.reply(404, {"message": "Not Found"})
            return
        stub.requests.append(operation.name)

        def act() -> None:
            self.act(operation, match.groupdict(), dict(parse_qsl(parts.query)), content)

        fault = next(stub.faults.get(operation.name, iter(())), None)
        fault(self, act) if fault else act()

    do_GET = do_POST = do_DELETE = handle_request  # noqa: N815

    def act(self, operation: Operation, ids: dict[str, str], query: dict[str, str], content: bytes) -> None:
        stub = self.server.stub
        if stub.token and self.headers.get("authorization") != f"Bearer {stub.token}":
            self.reply(401, {"message": "Unauthenticated"})
            return
        found = [f"?{name}: no such parameter" for name in query if name not in operation.query]
        if "filter" in query:
            found += problems_of("V2beta1Filter", json.loads(query["filter"]), "filter")
        body = json.loads(content) if content else None
        if operation.body:
            found += problems_of(operation.body, body, "body")
        elif body is not None:
            found.append("a body, where none is taken")
        if found:
            stub.problems += [f"{operation.name}: {each}" for each in found]
            self.reply(400, {"message": "; ".join(found)})
            return
        try:
            self.reply(200, stub.answer(operation, ids, query, body))
        except RefusedError as error:
            self.reply(error.status, {"message": error.message})

    def reply(self, status: int, answer: Any, kind: str = "application/json") -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if self.__dict__.pop("muted", False):
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    stub: Any

    def handle_error(self, *_: object) -> None:  # clients that gave up
        pass


OPERATIONS = operations()


def status(code: int, *, after: bool = False) -> Fault:
    """Answers with an error, before or after the request has its effect."""

    def fault(handler: Handler, act: Callable[[], None]) -> None:
        if after:
            handler.muted = True
            act()
        handler.reply(code, {"error": "boom", "code": 13, "message": "Internal error: \x1b[31mboom"})

    return fault


def reset(*, after: bool = False) -> Fault:
    """Resets the connection, before or after the request has its effect."""

    def fault(handler: Handler, act: Callable[[], None]) -> None:
        if after:
            handler.muted = True
            act()
        handler.reset()

    return fault


def slow(*, then: bool) -> Fault:
    """Says nothing for longer than a client waits; `then` has its effect all the same, when the client is gone."""

    def fault(handler: Handler, act: Callable[[], None]) -> None:
        handler.server.stub.ended.wait(0.4)
        if then:
            handler.muted = True
            act()
        handler.close_connection = True

    return fault


def login(handler: Handler, _: Callable[[], None]) -> None:
    handler.reply(200, b"<!DOCTYPE html><title>Sign in</title>", "text/html")


def well(_: Handler, act: Callable[[], None]) -> None:
    act()


@contextmanager
def serve(
    handler: type[BaseHTTPRequestHandler] = Handler, make: Callable[..., Any] = Stub, **settings: Any
) -> Iterator[Any]:
    server = Server(("127.0.0.1", 0), handler)
    server.stub = stub = make(f"http://127.0.0.1:{server.server_address[1]}", **settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub
    finally:
        stub.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
