"""What a failed try of a step disturbs, kept so that the step can be tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from colabkit.frameworks.torch.randomness import (
    generators_in,
    global_states,
    own_generator_state,
    restore_global_states,
    restore_own_generator,
)


class StepRollback:
    """The random streams, buffers and gradients as they were before a step.

    Gradients of earlier batches are set aside: the step adds to none of them until it has
    succeeded, and then ``merge`` adds as PyTorch would have.

    Args:
        model: Whose buffers and own random generators are kept.
        optimizer: Whose parameters are looked after besides the model's.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        groups = [group["params"] for group in optimizer.param_groups]
        every = [*model.parameters(), *(each for group in groups for each in group)]
        self._parameters = list(dict.fromkeys(every))
        modules = list(model.modules())
        self._generators = generators_in(list(model.modules()))
        self._streams: dict[str, Any] = {}
        self._own: list[object] = []
        self._gradients: list[torch.Tensor | None] = []
        self._buffers = [_KeptBuffer(b, silent=s) for b, s in _buffers_of(modules)]

    def keep(self) -> None:
        """Keeps the state as it is now."""
        self._streams = global_states()
        self._own = [own_generator_state(each) for each in self._generators]
        for buffer in self._buffers:
            buffer.keep()
        self._gradients = [each.grad for each in self._parameters]
        self._drop_gradients()

    def restore(self) -> None:
        """Puts back what was kept, and drops the gradients of the try."""
        restore_global_states(self._streams)
        for generator, state in zip(self._generators, self._own, strict=True):
            restore_own_generator(generator, state)
        for buffer in self._buffers:
            buffer.restore()
        self._drop_gradients()

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def merge(self) -> None:
        """Adds the step's gradients to those of the batches before it."""
        for parameter, before in zip(self._parameters, self._gradients, strict=True):
            if before is None:
                continue
            if parameter.grad is not None:
                same_layout = before.layout == parameter.grad.layout
                before = before.add_(parameter.grad) if same_layout else before + parameter.grad
            parameter.grad = before
        self._gradients = []


class _KeptBuffer:
    """A copy of one buffer, taken anew only when it may have changed."""

    def __init__(self, buffer: torch.Tensor, *, silent: bool) -> None:
        self._buffer = buffer
        self._silent = silent
        self._copy: torch.Tensor | None = None
        self._version = -1

    def keep(self) -> None:
        if self._copy is None:
            self._copy = self._buffer.detach().clone()
        elif self._silent or self._buffer._version != self._version:
            self._copy.copy_(self._buffer)
        self._version = self._buffer._version

    @torch.no_grad()
    def restore(self) -> None:
        changed = self._silent or self._buffer._version != self._version
        if changed and self._copy is not None:
            self._buffer.copy_(self._copy)


def _buffers_of(modules: list[nn.Module]) -> list[tuple[torch.Tensor, bool]]:
    """Returns each buffer, and whether it changes without PyTorch's counting it."""
    found: dict[torch.Tensor, bool] = {}
    for module in modules:
        # Batch norm's kernel writes its running means past the version counter.
        silent = isinstance(module, _NormBase)
        for buffer in module.buffers(recurse=False):
            found[buffer] = found.get(buffer, False) or silent
    return list(found.items())


def isolated(work: Callable[[], Any]) -> Any:
    """Returns what ``work`` gives; the random streams are as if it had not been called."""
    streams = global_states()
    try:
        return work()
    finally:
        restore_global_states(streams)
