"""Gradients that wait for their optimizer: which they are, and how a checkpoint stores them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch

from colabkit.frameworks.torch.structure import parameters_of

_Mark = tuple[weakref.ref[torch.Tensor], int] | None


def stored_gradient(gradient: torch.Tensor) -> Any:
    """Returns a gradient as dense tensors; one that is sparse in its two parts.

    Not summed up: an embedding's rows are added in the order of the batches at the end, and
    another order has other bits.
    """
    if gradient.layout is not torch.sparse_coo:
        return gradient
    return {
        "indices": gradient._indices(),
        "values": gradient._values(),
        "is_coalesced": gradient.is_coalesced(),
    }


def gradient_of(parameter: torch.Tensor, stored: Any) -> torch.Tensor | None:
    """Returns the gradient that ``stored_gradient`` gave for a parameter; None for None."""
    if stored is None:
        return None
    if isinstance(stored, Mapping):
        return torch.sparse_coo_tensor(
            stored["indices"].to(parameter.device).clone(),
            stored["values"].to(parameter.device).clone(),
            parameter.shape,
            is_coalesced=stored["is_coalesced"],
            check_invariants=True,
        )
    # In the parameter's own strides, which a checkpoint does not know.
    return torch.empty_like(parameter).copy_(stored)


class OptimizerHooks:
    """Hooks the optimizers: who stepped since the last boundary, and what to wait for before.

    Args:
        optimizers: By name.
        before_step: Called before any optimizer changes anything.
    """

    def __init__(
        self, optimizers: Mapping[str, torch.optim.Optimizer], before_step: Callable[[], None]
    ) -> None:
        self._optimizers = optimizers
        self._before_step = before_step
        self._stepped: set[str] = set()
        # By optimizer, the gradients as its last step left them, in loops that keep them.
        self._used: dict[str, list[_Mark] | None] = dict.fromkeys(self._optimizers)
        self._handles = []
        for name, optimizer in self._optimizers.items():
            self._handles.append(optimizer.register_step_pre_hook(self._noting(name)))
            self._handles.append(optimizer.register_step_post_hook(self._marking(name)))

    def _noting(self, name: str) -> Any:
        stepped, before_step = self._stepped, self._before_step

        def note(*_: object) -> None:
            stepped.add(name)
            before_step()

        return note

    def _marking(self, name: str) -> Any:
        used, optimizer = self._used, self._optimizers[name]

        def mark(*_: object) -> None:
            if name in used:
                used[name] = [_mark_of(parameter.grad) for parameter in parameters_of(optimizer)]

        return mark

    def begin_step(self) -> None:
        """Called at each step boundary."""
        self._stepped.clear()

    def has_stepped(self) -> bool:
        """Whether any optimizer has stepped since the last boundary, or there is none."""
        return bool(self._stepped) or not self._optimizers

    def pending(self) -> dict[str, dict[int, Any]]:
        """Returns the gradients that the next step of an optimizer may use.

        A loop may step first and go backward afterwards: what has changed since the step waits.
        """
        return {name: self._pending_of(name) for name in self._optimizers}

    def _pending_of(self, name: str) -> dict[int, Any]:
        grads = [parameter.grad for parameter in parameters_of(self._optimizers[name])]
        there = {index: grad for index, grad in enumerate(grads) if grad is not None}
        if name in self._stepped:
            if not there:
                # A loop that drops them after its step need not mark them at each.
                self._used.pop(name, None)
                return {}
            marks = self._used.setdefault(name, None) or []
            there = {i: g for i, g in there.items() if i >= len(marks) or marks[i] != _mark_of(g)}
        return {index: stored_gradient(grad) for index, grad in there.items()}

    @staticmethod
    def restore(
        optimizers: Mapping[str, torch.optim.Optimizer],
        gradients: Mapping[str, Mapping[int, Any]],
    ) -> None:
        """Puts pending gradients back, and drops those that a broken step has left."""
        for name, optimizer in optimizers.items():
            kept = gradients.get(name, {})
            for index, parameter in enumerate(parameters_of(optimizer)):
                parameter.grad = gradient_of(parameter, kept.get(index))

    def close(self) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()


def _mark_of(grad: torch.Tensor | None) -> _Mark:
    """Tells a gradient from any other, and from itself once somebody has changed it."""
    # By weak reference, or gradients that the loop drops would stay in memory.
    return None if grad is None else (weakref.ref(grad), grad._version)
