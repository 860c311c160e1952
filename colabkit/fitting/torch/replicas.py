"""Parts that one process takes in place of several, each with its own gradients and buffers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from colabkit.fitting.torch.step import TrainStep


class Replicas:
    """The gradients and buffers of parts that stand for processes, kept apart within a group.

    As DDP does, each part begins a group with the buffers of the first one, and its gradients
    are summed over the group before they meet those of the other parts.

    Args:
        model: Whose they are.
        step: Says where groups begin and end.
        count: How many parts.
    """

    def __init__(self, model: nn.Module, step: TrainStep, count: int) -> None:
        self._model = model
        self._step = step
        self._count = count
        self._gradients: list[list[torch.Tensor | None]] = []
        self._sparse: dict[nn.Parameter, list[torch.Tensor]] = {}
        self._buffers: list[list[torch.Tensor]] = []

    def begin(self) -> None:
        """Before each batch."""
        if self._step.begins_group or not self._buffers:
            held = [buffer.clone() for buffer in self._model.buffers()]
            self._buffers = [held] * self._count
            self._gradients = []

    @contextlib.contextmanager
    def taking(self, place: int) -> Iterator[None]:
        """The context in which one part is taken."""
        by_steps = self._step.is_by_steps
        if by_steps and not self._gradients:
            # What one process has gathered before it was cut counts with the first part.
            first = [p.grad for p in self._model.parameters()]
            none: list[torch.Tensor | None] = [None] * len(first)
            self._gradients = [first, *([none] * (self._count - 1))]
        if by_steps:
            self._put_gradients(self._gradients[place])
        self._put_buffers(place)
        yield
        self._buffers[place] = [buffer.clone() for buffer in self._model.buffers()]
        if by_steps:
            self._gradients[place] = [p.grad for p in self._model.parameters()]
        else:
            self._set_sparse_aside()

    def end(self) -> None:
        """After each batch: with the last of a group, all is put together."""
        if not self._step.ends_group:
            return
        self._put_buffers(0)
        for parameter, parts in self._sparse.items():
            parameter.grad = _sum_of_sparse(parts)
        self._sparse = {}
        if self._gradients:
            self._put_gradients(self._gradients[0])
            for several in self._gradients[1:]:
                for parameter, gradient in zip(self._model.parameters(), several, strict=True):
                    if gradient is None:
                        continue
                    own = parameter.grad
                    if gradient.is_sparse:
                        both = [gradient] if own is None else [own, gradient]
                        parameter.grad = _sum_of_sparse(both)
                    else:
                        parameter.grad = gradient if own is None else own.add_(gradient)
        self._gradients = []

    def _set_sparse_aside(self) -> None:
        """Keeps sparse gradients of a part: added up row by row, those of all would differ."""
        for parameter in self._model.parameters():
            if parameter.grad is not None and parameter.grad.is_sparse:
                self._sparse.setdefault(parameter, []).append(parameter.grad)
                parameter.grad = None

    def _put_gradients(self, gradients: list[torch.Tensor | None]) -> None:
        for parameter, gradient in zip(self._model.parameters(), gradients, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def _put_buffers(self, place: int) -> None:
        for buffer, kept in zip(self._model.buffers(), self._buffers[place], strict=True):
            buffer.copy_(kept)


def _sum_of_sparse(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Returns what processes make of theirs: each adds up its rows, and these are added then."""
    total, *others = (each.coalesce() for each in gradients)
    for each in others:
        total = (total + each).coalesce()
    return total
