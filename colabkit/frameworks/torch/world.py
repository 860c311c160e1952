"""The processes that train one model together, as torchrun starts them, and what they agree on."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from colabkit.errors import ArgumentError, ProcessLostError
from colabkit.frameworks.processes import process_count

# Rank 0 may write a last checkpoint to a slow volume for as long, and the others wait for it.
DEADLINE_S = 1800.0
_OF_ENGINES = ("gloo", "NCCL", "onnection closed by peer", "onnection reset", "Broken pipe")
_FAILED = "colabkit/failed"
_T = TypeVar("_T")
_joined: list[World] = []


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
                dist.init_process_group(backend, timeout=timeout)
            self.group: Any = dist.new_group(backend=backend, timeout=timeout)
            self._control: Any = dist.new_group(backend="gloo", timeout=timeout)
        except (RuntimeError, ValueError) as error:
            message = f"The {process_count()} processes of the job have not come together: {error}"
            hint = "Start all of them again; each must come to the same call of fit."
            raise ProcessLostError(message, hint=hint) from error
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = device
        self.is_broken = False

    @property
    def leads(self) -> bool:
        """Whether this is the process that reads, writes, shows and decides."""
        return self.rank == 0

    def share(self, value: _T) -> _T:
        """Returns the value that the leading process has; the others' do not matter."""
        held: list[Any] = [value if self.leads else None]
        dist.broadcast_object_list(held, src=0, group=self._control)
        shared: _T = held[0]
        return shared

    def gather(self, value: _T) -> list[_T]:
        """Returns what each process has, by rank."""
        held: list[Any] = [None] * self.size
        dist.all_gather_object(held, value, group=self._control)
        return held

    def largest(self, values: Sequence[int]) -> list[int]:
        """Returns the largest that any process has in each place."""
        held = torch.tensor(list(values), dtype=torch.int64)
        dist.all_reduce(held, dist.ReduceOp.MAX, group=self._control)
        found: list[int] = held.tolist()
        return found

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Adds what each process has, in place."""
        dist.all_reduce(values, group=self.group)
        return values

    def take_buffers(self, module: nn.Module) -> None:
        """Gives a module the buffers that it has in the leading process."""
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0, group=self.group)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Lets an error in one process be one in all: none waits for who will not come.

        Raises:
            ProcessLostError: Another process has failed, died, or does not answer in time.
        """
        try:
            yield
        except BaseException as error:
            lost = self._lost(error)
            self._leave(error)
            if lost is None:
                raise
            raise lost from error

    def _lost(self, error: BaseException) -> ProcessLostError | None:
        """Returns what an error of the engine means; None for one of this process's own."""
        is_engines = isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OF_ENGINES)
        )
        if not is_engines:
            return None
        said = ""
        with contextlib.suppress(RuntimeError):
            if (store := _store()).check([_FAILED]):
                said = store.get(_FAILED).decode()
        message = said or (
            f"Another of the {self.size} processes has died or does not answer"
            f" ({str(error).splitlines()[0].partition('. This is')[0]})."
        )
        hint = "Start all of them again: training goes on from the newest checkpoint."
        return ProcessLostError(message, hint=hint)

    def _leave(self, error: BaseException) -> None:
        """Tells the others why, and closes what they would wait for."""
        self.is_broken = True
        what = f"Process {self.rank} has stopped: {type(error).__name__}: {error}"
        with contextlib.suppress(RuntimeError, AttributeError):
            if not (store := _store()).check([_FAILED]):
                store.set(_FAILED, what)
        if self.device.type != "cuda":  # NCCL's would wait for what is under way
            for group in (self.group, self._control):
                with contextlib.suppress(RuntimeError, ValueError):
                    dist.destroy_process_group(group)


def join(device: torch.device) -> World | None:
    """Returns the processes that train together, None where there is but this one.

    Raises:
        ProcessLostError: They do not come together, or one of them has failed before.
    """
    if process_count() == 1:
        return None
    if not _joined:
        _joined.append(World(device, deadline_s=DEADLINE_S))
    world = _joined[-1]
    if world.is_broken:
        message = "This job has lost a process before, and cannot come together again."
        raise ProcessLostError(message, hint="Start all processes again.")
    return world


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


def _store() -> Any:
    """Returns the store that the processes met at, which outlives their groups."""
    return dist.distributed_c10d._get_default_store()
