"""Models whose gradients are summed over the processes, by what PyTorch has for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.lean_calls import backward_with
from colabkit.fitting.torch.step import TrainConfig
from colabkit.frameworks.torch.parts import Share
from colabkit.frameworks.torch.pieces import sharded_layers
from colabkit.frameworks.torch.world import World

Begun = Callable[[], torch.Tensor]


class Summing(Protocol):
    """A model whose gradients are summed over the processes; called as the model is."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Goes forward."""
        ...

    def begin_epoch(self) -> None:
        """Before each epoch, whose callbacks may have changed the model."""
        ...

    def begin(self, world: World, *, begins_group: bool) -> None:
        """Before each batch."""
        ...

    def syncing(self, syncs: bool) -> contextlib.AbstractContextManager[None]:
        """The context of a forward and backward pass, whose gradients are summed or wait."""
        ...

    def begin_sum(self, values: torch.Tensor, world: World) -> Begun:
        """Begins, before the last backward pass, to sum values; what it returns is called after."""
        ...


class InCopies:
    """A model of which each process has a copy, within DistributedDataParallel.

    Args:
        model: The model.
        optimizer: What steps with the gradients, and clears them.
        finish_copying: Waits until no snapshot needs the weights as they are.
        slots: How many values go along with the gradients of each batch; 0 sends them apart.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        finish_copying: Callable[[], None],
        *,
        slots: int = 0,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._finish_copying = finish_copying
        self._slots = slots
        self._weights: list[nn.Parameter] = []
        self._used: list[nn.Parameter] = []
        self._carries = False
        self._trained: list[bool] = []
        self._ddp: DistributedDataParallel | None = None
        self._held: _Held | None = None
        # What DDP divides by: without it, by the number of processes.
        self._divisor: Any = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Goes forward, with the buffers of process 0."""
        return self._wrapped(*given, **named)

    @property
    def _wrapped(self) -> DistributedDataParallel:
        assert self._ddp is not None  # noqa: S101  # wrapped before each batch
        return self._ddp

    def begin_epoch(self) -> None:
        """Looks which weights there are."""
        self._weights = list(self._model.parameters())

    def begin(self, world: World, *, begins_group: bool) -> None:  # noqa: ARG002
        """Wraps the model, again where a callback has frozen or thawed weights."""
        trained = [each.requires_grad for each in self._weights]
        if trained != self._trained:
            self._trained = trained
            self._wrap(world)
        if self._divisor is not None:
            self._wrapped.reducer._set_forward_pass_work_handle(self._divisor, False)

    def _wrap(self, world: World) -> None:
        # Each wrapper begins by writing the weights of process 0 into all, its own among them.
        self._finish_copying()
        used = [each for each in self._weights if each.requires_grad]
        carries = bool(self._slots) and self._are_clear(used)
        is_wide = bool(used) and used[0].dtype == torch.float64
        dtype = torch.float64 if is_wide else torch.float32
        size = self._slots + 1 if carries else 1
        self._held = held = _Held(self._model, torch.zeros(size, dtype=dtype, device=world.device))
        self._used, self._carries = used, carries
        self._ddp = DistributedDataParallel(
            held,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            process_group=world.group,
            # Without, buckets are laid out anew after the first backward of a session, and from 3
            # processes on a resumed run would sum in another order.
            find_unused_parameters=not carries,
            # Gradients stay where they are summed, and are not copied back from there.
            gradient_as_bucket_view=True,
        )
        can_be_told = hasattr(self._ddp.reducer, "_set_forward_pass_work_handle")
        if can_be_told and world.device.type == "cpu":
            self._divisor = _divisor_of_one(world)
        else:
            # DDP wants its own type as the annotation, or none.
            self._ddp.register_comm_hook(world.group, lambda group, bucket: _summed(group, bucket))

    def _are_clear(self, weights: list[nn.Parameter]) -> bool:
        """Whether the gradients of weights are None when a batch begins, and nobody looks at them.

        Only then a weight is known to be unused by its gradient, and can be given one of nothing.
        """
        optimizer = self._optimizer
        is_own = type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad
        if is_own or "zero_grad" in vars(optimizer) or any(map(_has_hooks, weights)):
            return False
        held = {id(each) for group in optimizer.param_groups for each in group["params"]}
        return held.issuperset(map(id, weights))

    def syncing(self, syncs: bool) -> contextlib.AbstractContextManager[None]:
        """The context of a forward and backward pass, whose gradients are summed or wait."""
        return contextlib.nullcontext() if syncs else self._wrapped.no_sync()

    def begin_sum(self, values: torch.Tensor, world: World) -> Begun:
        """Begins to sum values: as one more gradient, where they may go along with the others."""
        if not self._carries:
            return world.begin_sum(values)
        assert self._held is not None  # noqa: S101  # wrapped before each batch
        extra = self._held.extra
        goes_along = values.dtype == extra.dtype
        apart = None if goes_along else world.begin_sum(values)

        def arrived() -> torch.Tensor:
            sums = self._finish(extra, values.tolist() if goes_along else [], world)
            return sums[: len(values)] if apart is None else apart()

        return arrived

    def _finish(self, extra: nn.Parameter, values: list[float], world: World) -> torch.Tensor:
        """Ends the backward pass, with nothing for weights that this batch has not used."""
        unused = [number for number, each in enumerate(self._used) if each.grad is None]
        room = [0.0] * (len(extra) - 1 - len(values))
        carried = torch.tensor([*values, *room, len(unused)], dtype=extra.dtype)
        given = [self._used[number] for number in unused]
        nothing = [torch.zeros_like(each) for each in given]
        world.arrive()
        backward_with([extra, *given], [carried, *nothing])
        sums = extra.grad
        extra.grad = None
        assert sums is not None  # noqa: S101  # the gradient that was given
        if sums[-1].item():
            found = world.gather(unused, at="weights without a gradient")
            for number in set(found[0]).intersection(*found[1:]):
                # No process has used it: its optimizer is not to see it.
                self._used[number].grad = None
        return sums


def can_carry(config: TrainConfig, share: Share) -> bool:
    """Whether values may go along with the gradients, as one more of them.

    Reading what has arrived would make a GPU wait. More than two processes would sum in another
    order once DDP has laid its buckets out anew, which it does where it need not look for unused
    weights.
    """
    is_alone = share.count == share.processes == 2
    if not is_alone or config.device.type != "cpu" or config.accumulate > 1:
        return False
    return not any(getattr(each, "sparse", False) is True for each in config.model.modules())


class InPieces:
    """A model that the user has put through ``fully_shard``: each process has pieces of it.

    Raises:
        ArgumentError: This PyTorch cannot be told to sum.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._layers = sharded_layers(model)
        self._syncs = True
        for layer in self._layers:
            if not hasattr(layer, "set_force_sum_reduction_for_comms"):
                message = "fit sums gradients, and fully_shard of this PyTorch only takes means."
                raise ArgumentError(message, argument="model", hint="Take a later one: 2.13 does.")
            # A mean's division is not exact for 3 processes.
            layer.set_gradient_divide_factor(1.0)
            layer.set_force_sum_reduction_for_comms(enable=True)

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Goes forward."""
        return self._model(*given, **named)

    def begin_epoch(self) -> None:
        """Nothing: pieces are what they were."""

    def begin(self, world: World, *, begins_group: bool) -> None:
        """Takes the buffers of process 0, as DistributedDataParallel does."""
        if begins_group:
            world.take_buffers(self._model)

    def syncing(self, syncs: bool) -> contextlib.AbstractContextManager[None]:
        """Says whether the gradients of the next backward pass are summed or wait."""
        if syncs != self._syncs:
            self._syncs = syncs
            for layer in self._layers:
                layer.set_requires_gradient_sync(syncs, recurse=False)
        return contextlib.nullcontext()

    def begin_sum(self, values: torch.Tensor, world: World) -> Begun:
        """Begins to sum values."""
        return world.begin_sum(values)


class _Held(nn.Module):
    """A model beside a weight of no use to it, which carries values from process to process.

    Where it carries none, DDP would warn without it that it looked for unused ones in vain.
    """

    def __init__(self, model: nn.Module, extra: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.extra = nn.Parameter(extra)

    def forward(self, *given: Any, **named: Any) -> Any:
        return self.model(*given, **named)


def _has_hooks(parameter: nn.Parameter) -> bool:
    kinds = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(parameter, kind, None) for kind in kinds)


def _divisor_of_one(world: World) -> Any:
    """Returns what tells DDP to divide gradients by 1.

    A mean's division is not exact for 3 processes, nor for numbers next to nothing. DDP asks for
    the number of processes that still have batches, where some may have run out.
    """
    one = torch.ones(1)
    work = dist.all_reduce(one, op=dist.ReduceOp.MAX, group=world.group, async_op=True)
    work.wait()
    return work


def _summed(group: Any, bucket: Any) -> torch.futures.Future[torch.Tensor]:
    """Sums a bucket; DDP would take the mean, whose division is not exact for 3 processes."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    summed: torch.futures.Future[torch.Tensor] = work.get_future().then(
        lambda done: done.value()[0]
    )
    return summed
