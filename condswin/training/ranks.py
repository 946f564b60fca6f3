"""Processes that train together: started here, all on this machine, or by torchrun on any number of machines.

A rank is the number of a process. Rank 0 decides and writes; the others compute. Processes that are started here meet
in a file and talk over the loopback interface: torch's own meeting place listens on all of a machine's addresses.
"""

import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import distributed
from torch._C._distributed_c10d import FileStore
from torch.distributed.rendezvous import rendezvous

from condswin.config.train import TrainConfig
from condswin.devices import device
from condswin.errors import CondswinError, ConfigError, RankError
from condswin.training.heartbeat import heartbeat

T = TypeVar("T")

#: Seconds that a process has for ending by itself after one beside it died.
PATIENCE = 15.0


class Place(NamedTuple):
    """Where a process stands among those that train together.

    Attributes:
        rank: Its number.
        ranks: How many there are.
        local_rank: Its number among those on its machine.
        local_ranks: How many there are on each machine.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1


class Environment(LightningEnvironment):
    """Tells Lightning the place of this process; there is nothing left for it to start.

    Args:
        place: The place.
    """

    creates_processes_externally = True

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place

    def local_rank(self) -> int:
        """See Lightning."""
        return self._place.local_rank

    def node_rank(self) -> int:
        """See Lightning."""
        return self._place.rank // self._place.local_ranks

    def teardown(self) -> None:
        """Leaves the environment as it is."""


def a_loader_died(error: RuntimeError) -> bool:
    """Whether torch says with this error that a process that loads slices died; it may do so amid anything.

    Amid the writing of a state torch's writer then fails as well, and its error is what arrives.
    """
    cause: BaseException | None = error
    while cause is not None and "DataLoader worker" not in str(cause):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def how_many(train: TrainConfig) -> int:
    """Processes that a training has: torchrun's, those that the parameters name, or one for each GPU.

    Raises:
        ConfigError: torchrun started another number than the parameters name.
    """
    place = _of_torchrun()
    if place is not None:
        if train.processes not in (None, place.local_ranks):
            raise ConfigError(
                f"train.processes: {train.processes}, but torchrun started {place.local_ranks} on this machine; "
                "leave it null, or start torchrun with as many"
            )
        return place.ranks
    gpus = torch.cuda.device_count() if device(train.device).type == "cuda" else 0
    if gpus and (train.processes or 1) > gpus:
        raise ConfigError(f"train.processes: {train.processes}, but this machine has {gpus} GPUs; give at most as many")
    return train.processes or max(gpus, 1)


@contextmanager
def joined() -> Iterator[Place]:
    """Connects this process with the others that torchrun started; without torchrun it is alone."""
    place = _of_torchrun()
    if place is None or place.ranks == 1:
        yield Place()
        return
    with _connected(place, None):
        yield place


def place() -> Place:
    """The place of this process, which has joined the others."""
    if not distributed.is_initialized():
        return Place()
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    return _of_torchrun() or Place(rank, ranks, rank, ranks)


@contextmanager
def helped(ranks: int, help_: Callable[[Place, Any], object], job: Any) -> Iterator[Place]:
    """Runs the block as rank 0, and a function as the other ranks in processes of this machine.

    Nothing is started where this process has joined others already.

    Args:
        ranks: How many there are.
        help_: What the others run; a function of a module.
        job: Its argument, which is copied.

    Raises:
        RankError: One of the others died; it has said why.
    """
    if ranks == 1 or distributed.is_initialized():
        yield place()
        return
    places = [Place(rank, ranks, rank, ranks) for rank in range(ranks)]
    with tempfile.TemporaryDirectory(prefix="condswin-") as folder, _threads_shared(ranks):
        meeting = Path(folder, "meeting")
        # Pickled here: what starts processes would share the tensors in it with them.
        content = pickle.dumps((help_, job))
        context = get_context("spawn")
        helpers = [context.Process(target=_help, args=(place, meeting, content)) for place in places[1:]]
        done = threading.Event()
        try:
            for helper in helpers:
                helper.start()
            threading.Thread(target=_end_with, args=(helpers, done), daemon=True).start()
            with _connected(places[0], meeting):
                try:
                    yield places[0]
                except BaseException as error:
                    # Before the connection ends, or each would say that it lost it.
                    dead = _dead(helpers) if isinstance(error, RuntimeError) else None
                    _kill(helpers)
                    if dead is not None:
                        raise RankError(dead) from error
                    raise
            for helper in helpers:
                helper.join()
            if dead := _dead(helpers):
                raise RankError(dead)
        finally:
            done.set()
            _kill(helpers)


def first(make: Callable[[], T]) -> T:
    """What rank 0 makes, on all ranks; the others wait for it."""
    if not distributed.is_initialized():
        return make()
    found = [make() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]


def from_all(value: T) -> list[T]:
    """The values of all ranks, by rank."""
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def any_rank(*flags: bool) -> list[bool]:
    """For each flag, whether it is set on any rank."""
    if not distributed.is_initialized():
        return list(flags)
    # On the CPU, so that no GPU is waited for.
    common = torch.tensor(flags, dtype=torch.uint8)
    distributed.all_reduce(common, distributed.ReduceOp.MAX)
    return [bool(flag) for flag in common.tolist()]


def _of_torchrun() -> Place | None:
    if not distributed.is_torchelastic_launched():
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Place(*(int(os.environ[name]) for name in names))


@contextmanager
def _connected(place: Place, meeting: Path | None) -> Iterator[None]:
    if place.ranks == place.local_ranks:
        loopback = next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)
    gpus = torch.cuda.device_count() >= place.local_ranks
    if gpus:
        torch.cuda.set_device(place.local_rank)
    store = FileStore(str(meeting), place.ranks) if meeting else next(rendezvous("env://"))[0]
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo", store=store, rank=place.rank, world_size=place.ranks
    )
    several_machines = place.ranks > place.local_ranks
    try:
        with heartbeat(store, place.rank, place.ranks) if several_machines else nullcontext():
            yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def _threads_shared(ranks: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(max(before // ranks, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _help(place: Place, meeting: Path, content: bytes) -> None:
    """What a process that is started here runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 hears of it too, and ends the others
    threading.Thread(target=_end_without_parent, daemon=True).start()
    torch.set_num_threads(max(torch.get_num_threads() // place.ranks, 1))
    try:
        with _connected(place, meeting):
            help_, job = pickle.loads(content)
            help_(place, job)
    except CondswinError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


def _end_without_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _end_with(helpers: Sequence[BaseProcess], done: threading.Event) -> None:
    """Ends this process if one of the others died and it does not notice: it may wait for that one's numbers."""
    while not done.wait(1):
        dead = _dead(helpers, wait=0)
        if dead is not None and not done.wait(PATIENCE):
            print(f"error: {dead}", file=sys.stderr, flush=True)
            os._exit(1)


def _dead(helpers: Sequence[BaseProcess], wait: float = 3.0) -> str | None:
    """Which of the others died, in words."""
    ended = connection.wait([helper.sentinel for helper in helpers], timeout=wait)
    for rank, helper in enumerate(helpers, start=1):
        if helper.sentinel in ended:
            helper.join(1)  # its pipe closes a moment before its status is there
        who = f"training process {rank} of {len(helpers) + 1}, counted from 0,"
        again = "start again: the training goes on from its last checkpoint"
        if helper.exitcode and helper.exitcode > 0:
            return f"{who} ended and said why above; mend that and {again}"
        if helper.exitcode:
            return f"{who} was killed by {signal.Signals(-helper.exitcode).name}; {again}"
    return None


def _kill(helpers: Sequence[BaseProcess]) -> None:
    """The others have nothing to save."""
    for helper in helpers:
        if helper.pid is not None:
            helper.kill()
            helper.join()
