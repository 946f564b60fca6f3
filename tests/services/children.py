"""Commands on a registry in processes of their own, forked from one that has imported everything: they cost little."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from sqlalchemy import Engine, event

from condswin.errors import CondswinError, GateError
from condswin.files import read_json, write_json
from condswin.registry import lock, tracking
from condswin.registry.lock import PREFIX
from condswin.registry.smoke import Smoke
from condswin.steps import promote as promoting
from condswin.steps import register as registering
from condswin.steps.approve import approve, freeze, reject
from tests.registry.toy import NAME, World, install, leave_out_code, make_config, plain_tags, psnr_rules

TASK = "reconstruction"
#: What MLflow imports late, in each process anew.
LATE = ("git", "mlflow.pyfunc", *(f"mlflow.store.{store}.sqlalchemy_store" for store in ("model_registry", "tracking")))
#: Seconds for others to come as far, and for a process to end.
PATIENCE = 600.0


def promote(world: World, bias: float = 0.9, **gate: Any) -> str:
    out = world.folder / f"promotion-{bias}" / "promotion.json"
    config = make_config(world.config.tracking.uri, **gate)
    registered = world.folder / f"registered-{bias}.json"
    return str(promoting.promote(config, TASK, registered, world.prepared, out).record["outcome"])


def promote_as_told(world: World, together: Any, bias: float) -> tuple[str, list[str]]:
    """Promotes again where a line says so; all have compared with the same champion before the first moves it."""
    real, lines = promoting.move_champion, []

    def move(*arguments: Any, **named: Any) -> None:
        if not lines:
            together.wait(PATIENCE)
        real(*arguments, **named)

    promoting.move_champion = move
    while True:
        try:
            return promote(world, bias), lines
        except GateError as error:
            lines.append(str(error))
            if len(lines) > 20 or "promote again" not in str(error):
                raise


def register(world: World, together: Any, bias: float) -> str:
    """All have found that their networks are not registered before the first registers one."""
    real = registering.log_package

    def log(*arguments: Any) -> Any:
        logged = real(*arguments)
        together.wait(PATIENCE)
        return logged

    registering.log_package = log
    return str(read_json(world.register(bias))["version"])


#: Whole commands, on version 2 of a registry whose champion is version 1 where they need any.
COMMANDS: dict[str, Callable[[World], Any]] = {
    "register": lambda world: str(world.register(0.9)),
    "promote": promote,
    "refuse": lambda world: promote(world, rules=psnr_rules(floor=99.0)),
    "hold": lambda world: promote(world, hold=True),
    "approve": lambda world: approve(world.config, TASK, "2", by="Jane", why="fine").text,
    "reject": lambda world: reject(world.config, TASK, "2", by="Jane", why="smooths tears").text,
    "roll back": lambda world: promoting.rollback(world.config, TASK).text,
    "freeze": lambda world: freeze(world.config, TASK, by="Jane", why="audit").text,
    "lift": lambda world: freeze(world.config, TASK, by="Jane", why="passed", lift=True).text,
}
DEEDS: dict[str, Callable[..., Any]] = {**COMMANDS, "promote as told": promote_as_told, "register beside": register}


def count_writes(end_before: int) -> None:
    """Kills this process instead of its write of that number: a transaction that changes something, or a request."""
    written, dirty = 0, set[Any]()

    def write() -> None:
        nonlocal written
        written += 1
        if written == end_before:
            os.kill(os.getpid(), signal.SIGKILL)

    @event.listens_for(Engine, "before_cursor_execute")
    def _(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().partition(" ")[0].upper() in ("INSERT", "UPDATE", "DELETE"):
            dirty.add(connection)

    @event.listens_for(Engine, "commit")
    def _(connection: Any) -> None:
        if connection in dirty:
            dirty.remove(connection)
            write()

    real = requests.Session.request

    def request(session: Any, method: str, url: str, *arguments: Any, **named: Any) -> Any:
        if method != "GET" and not url.endswith("/search"):
            write()
        return real(session, method, url, *arguments, **named)

    requests.Session.request = request


def forget_leases(world: World) -> None:
    for key in plain_tags(world.client):
        if key.startswith(PREFIX):
            world.client.delete_registered_model_tag(NAME, key)


def _run(deed: str, uri: str, folder: str, answer: str, end_before: int, named: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    install(patch)
    leave_out_code(patch)
    patch.setattr(promoting, "smoke", lambda *_, **__: Smoke([], 1.0))
    if "together" in named:  # many at one server, which answers one after another
        patch.setattr(lock, "LEASE", 60.0)
        patch.setattr(tracking, "PATIENCE", 60.0)
    if end_before:
        patch.setattr(lock, "LEASE", PATIENCE)  # how many writes there are shall not depend on how long they take
        count_writes(end_before)
    try:
        found: dict[str, Any] = {"answer": DEEDS[deed](World(Path(folder), make_config(uri)), **named)}
    except CondswinError as error:
        found = {"line": str(error)}
        if "together" in named:  # nobody is to wait for this one
            named["together"].abort()
    write_json(Path(answer), found)


@cache
def context() -> Any:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, *LATE])
    return processes


class Child:
    """One command in a process; `end_before` is the write that it does not live to make."""

    def __init__(self, deed: str, world: World, *, end_before: int = 0, **named: Any) -> None:
        self.answer = world.folder / f"answer-{id(self)}.json"
        arguments = (deed, world.config.tracking.uri, str(world.folder), str(self.answer), end_before, named)
        self.process = context().Process(target=_run, args=arguments)
        self.process.start()

    def ended(self) -> dict[str, Any]:
        """Its `answer`, or the `line` that it was refused with; nothing of one that was killed."""
        self.process.join(PATIENCE)
        self.process.kill()
        found = read_json(self.answer) if self.answer.exists() else {}
        self.answer.unlink(missing_ok=True)
        return dict(found)
