"""The processes that train one model together, as torchrun starts them, and what they agree on."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from colabkit.errors import ArgumentError, ColabKitError, ProcessesApartError, ProcessLostError
from colabkit.frameworks.processes import process_count
from colabkit.frameworks.torch.beats import APART, Doing, Place, stopped
from colabkit.frameworks.torch.connections import Connections
from colabkit.frameworks.torch.heartbeats import Board, Heartbeats, RollCall
from colabkit.frameworks.torch.standing import Collective

# Rank 0 may write a last checkpoint to a slow volume for as long, and the others wait for it.
DEADLINE_S = 1800.0
# After how long it is said who is waited for.
PATIENCE_S = 60.0
_ALIKE = (
    "Let every process run the same loops: no loop over the run, and no break or return from one,"
    " for some ranks alone."
)
_OF_ENGINES = ("gloo", "NCCL", "onnection closed by peer", "onnection reset", "Broken pipe")
_T = TypeVar("_T")
_logger = logging.getLogger(__name__)
_joined: list[World] = []
_tries: list[None] = []


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Before 2.6 PyTorch warns of its own way to hand objects over, which nobody can change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using `torch.load`", FutureWarning)
        yield


class World:
    """The processes of one job; every wait of theirs on each other ends after a deadline.

    Args:
        device: Where this process trains.
        deadline_s: After how many seconds a wait for another process is an error.

    Raises:
        ProcessLostError: Not all of them come together in time.
    """

    def __init__(self, device: torch.device, *, deadline_s: float) -> None:
        backend = "nccl" if device.type == "cuda" else "gloo"
        timeout = datetime.timedelta(seconds=deadline_s)
        try:
            if not dist.is_initialized():
                dist.init_process_group(backend, timeout=timeout, **_own_store(timeout))
            self._is_nccl = backend == "nccl"
            self._board = _next_board(deadline_s)
            _roll_call(self._board).wait(deadline_s, patience_s=PATIENCE_S)
            self._connections = Connections()
            self.group: Any = dist.new_group(backend=backend, timeout=timeout)
            self._lines = Connections()
            self._control: Any = dist.new_group(backend="gloo", timeout=timeout)
            self._lines.note()
            self._connections.note()
            # Who refuses now does so after all are through.
            dist.barrier(group=self._control)
        except (RuntimeError, ValueError) as error:
            count, board = process_count(), getattr(self, "_board", None)
            message = (board.failure() if board else "") or (
                f"The {count} processes of the job have not come together: {error}"
            )
            hint = "Start all of them again; each must come to the same call of fit or Run."
            raise ProcessLostError(message, hint=hint) from error
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = device
        self.is_broken = self.waits_elsewhere = False
        self.step = self._meetings = 0
        self._left_at, self._has_left, self._has_said = -1, False, False
        self._met_at = ""
        self._collective = Collective()
        self._beats: Heartbeats | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that reads, writes, shows and decides."""
        return self.rank == 0

    def arrive(self) -> None:
        """Notes that this process has come to where it may have to wait for the others."""
        self._meetings += 1

    @contextlib.contextmanager
    def _meeting(self, at: str) -> Iterator[None]:
        """Says where this process waits for the others, and what has become of them."""
        self._met_at = at
        try:
            yield
        except RuntimeError as error:
            if lost := self._lost(error):
                raise lost from error
            raise
        finally:
            self._met_at = ""

    def share(self, value: _T, *, at: str) -> _T:
        """Returns the value that the leading process has; the others' do not matter."""
        self.gather(None, at=at)
        held: list[Any] = [value if self.leads else None]
        with _without_advice(), self._meeting(at):
            dist.broadcast_object_list(held, src=0, group=self._control)
        shared: _T = held[0]
        return shared

    def gather(self, value: _T, *, at: str) -> list[_T]:
        """Returns what each process has, by rank.

        Raises:
            ProcessesApartError: They have come to different places, and none can go on.
        """
        self.arrive()
        held: list[Any] = [None] * self.size
        with _without_advice(), self._meeting(at):
            dist.all_gather_object(held, (at, value), group=self._control)
        for rank, (place, _) in enumerate(held):
            if place != held[0][0]:
                message = f"Process 0 has come to {held[0][0]}, and process {rank} to {place}."
                raise ProcessesApartError(message, hint=_ALIKE)
        return [each for _, each in held]

    def largest(self, values: Sequence[int], *, at: str) -> list[int]:
        """Returns the largest that any process has in each place."""
        return [max(each) for each in zip(*self.gather(tuple(values), at=at), strict=True)]

    def begin_sum(self, values: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begins to add what each process has, in place; returns what waits for the sum."""
        work = dist.all_reduce(values, group=self.group, async_op=True)

        def arrived() -> torch.Tensor:
            self.arrive()
            with self._meeting("a sum"):
                work.wait()
            return values

        return arrived

    def post(self, name: str, content: str) -> None:
        """Leaves what this process has to say of a save; safe from any thread, as the next two."""
        self._board.post(f"{name} {self.rank}", content)

    def posted(self, name: str, rank: int) -> str | None:
        """Returns what a process has left, None where it has not yet; it is given once."""
        return self._board.posted(f"{name} {rank}")

    def lost(self) -> str:
        """Returns why one of the processes may leave nothing any more, "" while all live."""
        if words := self._board.failure():
            return words
        return "a process is gone" if self.is_broken or self._lines.is_cut() else ""

    def take_buffers(self, module: nn.Module) -> None:
        """Gives a module the buffers that it has in the leading process."""
        self.arrive()
        with self._meeting("the buffers of a module"):
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0, group=self.group)

    @contextlib.contextmanager
    def session(self, *, is_inner: bool = False) -> Iterator[None]:
        """Lets an error in one process be one in all: none waits for who will not come.

        Args:
            is_inner: Whether it lies in the time of another session, but not in its frames.

        Raises:
            ProcessLostError: Another process has failed, died, or does not answer in time.
        """
        with contextlib.nullcontext() if is_inner else self._watched():
            try:
                yield
            except GeneratorExit:
                # A loop is left, by all processes or by one that ends now.
                raise
            except BaseException as error:
                lost = self._lost(error)
                self.leave(lost or error)
                if lost is None:
                    raise
                raise lost from error

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self._has_left, self._collective = False, Collective()
        self._beats = beats = Heartbeats(
            self._board,
            self.rank,
            self.size,
            place=self._place,
            step=lambda: self.step,
            on_failure=self._hear,
            patience_s=PATIENCE_S,
        )
        try:
            yield
        finally:
            self._beats = None
            beats.stop()

    def _place(self) -> Place:
        """Returns where this process is; called from the thread of its heartbeats."""
        doing, name = Doing.ANYTHING, f"step {self.step:,}"
        is_stood_in = self._collective.is_stood_in()
        if self._has_left:
            doing = Doing.LEFT
        elif at := self._met_at:
            doing, name = Doing.MEETS, at
        elif is_stood_in:
            doing = Doing.WAITS
        return Place(self._meetings, self._left_at, doing, name)

    def tell_left(self) -> None:
        """Says that an error has taken this process out of its loops, wherever it goes on."""
        self._left_at, self._has_left = self._meetings, True
        if self._beats is not None:
            self._beats.say()
        # Of one that the others' end has raised; its own words are that a connection was closed.
        self._say_why(self._board.failure())

    def _say_why(self, why: str) -> None:
        if why and self.waits_elsewhere and not (self._met_at or self._has_said):
            self._has_said = True
            _logger.error("%s.", why.rstrip("."))

    def tell_uncaught(self, error: BaseException) -> None:
        """Tells the others of an error that ends this process, or says whose error led to it."""
        if isinstance(error, ProcessLostError | ProcessesApartError):
            return
        why = self._board.failure()
        if not why:
            self.tell_lost(stopped(self.rank, error))
        elif not (self._has_said or why.startswith(f"Process {self.rank} ")):
            self._has_said = True
            _logger.error("%s.", why.rstrip("."))

    def _lost(self, error: BaseException) -> ProcessLostError | ProcessesApartError | None:
        """Returns what an error of the engine means; None for one of this process's own."""
        if isinstance(error, ColabKitError):  # its own words say more, and no engine raises them
            return None
        is_engines = isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OF_ENGINES)
        )
        if not (is_engines or self.is_broken):
            return None
        message = self._board.failure() or (
            f"Another of the {self.size} processes has died or does not answer"
            f" ({str(error).splitlines()[0].partition('. This is')[0]})."
        )
        if message.startswith(APART):
            return ProcessesApartError(message, hint=_ALIKE)
        hint = "Start all of them again: training goes on from the newest checkpoint."
        return ProcessLostError(message, hint=hint)

    def leave(self, error: BaseException) -> None:
        """Tells the others why this process leaves, and ends every wait of theirs for it."""
        self.tell_lost(stopped(self.rank, error))
        for group in (self._control, self.group):
            # A group that NCCL has given up itself, or that is closed already.
            with contextlib.suppress(RuntimeError, ValueError, AssertionError):
                _abort(group)

    def tell_lost(self, why: str) -> None:
        """Says that a process is gone, and ends the waits for it; safe from any thread."""
        with contextlib.suppress(RuntimeError):
            self._board.put_ends(self.rank)
        self._board.tell_failure(why)
        self._end_waits()

    def _hear(self, why: str) -> None:
        """Ends this process's waits, those in groups of the user's own too."""
        self._say_why(why)
        self._end_waits()
        self._board.end_connections(self.rank, self.size)

    def _end_waits(self) -> None:
        """Ends what this process and the others wait for from each other."""
        self.is_broken = True
        self._connections.end()
        if self._is_nccl:
            # One that this process has closed itself, as it left.
            with contextlib.suppress(RuntimeError, ValueError, AssertionError):
                _abort(self.group)


def join(device: torch.device) -> World | None:
    """Returns the processes that train together, None where there is but this one.

    Raises:
        ProcessLostError: They do not come together, or one of them has failed before.
    """
    if process_count() == 1:
        return None
    if not _joined:
        _joined.append(World(device, deadline_s=DEADLINE_S))
        if not isinstance(sys.excepthook, _Uncaught):
            sys.excepthook = _Uncaught()
    world = _joined[-1]
    if world.is_broken:
        message = "This job has lost a process before, and cannot come together again."
        raise ProcessLostError(message, hint="Start all processes again.")
    return world


class _Uncaught:
    """What Python calls with an error that ends the program: the others hear of it first."""

    def __init__(self) -> None:
        self.usual = sys.excepthook

    def __call__(self, kind: Any, error: BaseException, trace: Any) -> None:
        for world in _joined:
            world.tell_uncaught(error)
        self.usual(kind, error, trace)


def tell_lost(why: str) -> None:
    """Says that a process of this one's job is gone, for whoever waits for it."""
    for world in _joined:
        world.tell_lost(why)


@contextlib.contextmanager
def telling_before_joining() -> Iterator[None]:
    """Lets an error of a process that has not joined yet be one in those that wait for it."""
    try:
        yield
    except BaseException as error:
        if process_count() > 1 and dist.is_initialized() and not _joined:
            _roll_call(_next_board(DEADLINE_S)).tell_failure(error)
        raise


def _next_board(deadline_s: float) -> Board:
    """Returns that of this try to join: each process counts its own, and all the same."""
    _tries.append(None)
    return Board(f"{len(_tries)}", deadline_s=deadline_s)


def _roll_call(board: Board) -> RollCall:
    return RollCall(board, dist.get_rank(), dist.get_world_size())


def _own_store(timeout: datetime.timedelta) -> dict[str, Any]:
    """Returns where the processes of a restart meet, {} for those of a first start.

    torchrun may keep its store, in which the addresses of those that are dead would be found.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    engine: Any = dist  # it names its stores without exporting them
    store = engine.TCPStore(host, port, is_master=False, timeout=timeout)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = engine.PrefixStore(f"restart {attempt}", store)
    return {"store": store, "rank": rank, "world_size": size}


def leave() -> None:
    """Takes this process out of its job, in whatever state that is."""
    _joined.clear()
    _tries.clear()
    if isinstance(sys.excepthook, _Uncaught):
        sys.excepthook = sys.excepthook.usual
    with contextlib.suppress(RuntimeError, ValueError, AssertionError):
        dist.destroy_process_group()


def device_of_rank(asked: Any) -> Any:
    """Returns the device that a process of a job is to take: where GPUs are, one for each.

    Raises:
        ArgumentError: There are fewer GPUs than processes on this machine.
    """
    if process_count() == 1 or asked not in {None, "cuda"} or not torch.cuda.is_available():
        return asked
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        message = f"Process {place} of this machine has no GPU of its own: there are {count}."
        hint = f"Start torchrun with --nproc-per-node={count}, or pass device='cpu'."
        raise ArgumentError(message, argument="device", hint=hint)
    torch.cuda.set_device(place)
    return torch.device("cuda", place)


def _abort(group: Any) -> None:
    """Closes a group without waiting for what is under way in it, as NCCL's own end would."""
    if _is_nccl(group):
        engine = group._get_backend(torch.device("cuda"))
        # Before 2.6 its shutdown is what aborts.
        getattr(engine, "abort", engine._shutdown)()
    else:
        # Its last reference would wait for what is under way in it, for as long as its deadline:
        # wherever garbage is collected, or where Python ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
        dist.destroy_process_group(group)


def _is_nccl(group: Any) -> bool:
    return bool(dist.get_backend(group) == "nccl")
