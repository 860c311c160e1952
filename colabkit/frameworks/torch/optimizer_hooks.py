"""Gradients that wait for their optimizer: which they are, and how a checkpoint stores them."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from colabkit.frameworks.torch.pieces import cut_like
from colabkit.frameworks.torch.structure import parameters_of

# Of a gradient after a step: the object and its counter; None where there was none.
_Mark = tuple[weakref.ref[torch.Tensor], int] | None
# No counter: the gradient was changed after it was marked.
_CHANGED = -1
# After so many steps in a row whose gradients began anew, a loop is known to drop the old ones.
_SURE_STEPS = 8
_grad_of, _layout_of = operator.attrgetter("grad"), operator.attrgetter("layout")
_DENSE = frozenset({torch.strided})


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
    return torch.empty_like(parameter).copy_(cut_like(parameter, stored))


# By what gradients of parameters without an optimizer go; no object of a run is called so.
OF_OTHERS = ""


class Leftovers:
    """The gradients of one optimizer as its last step left them, and what becomes of them.

    Most loops drop them before they go backward again, and a checkpoint need not hold them. A
    loop that never does adds to them: to resume it without them would give other numbers.
    """

    def __init__(self) -> None:
        # None before a step was seen; by weak reference, or what the loop drops stays in memory.
        self._marks: list[_Mark] | None = None
        self._fresh_steps = 0
        self._adds_up = False
        self._is_watching = True

    @property
    def are_dropped(self) -> bool:
        """Whether the loop is known to drop them before it goes backward again."""
        return not self._adds_up and self._fresh_steps >= _SURE_STEPS

    @property
    def is_watching(self) -> bool:
        """Whether it asks to be told of the next step."""
        return self._is_watching

    def note_step(self, grads: list[torch.Tensor | None]) -> None:
        """Called after each step, with the gradients that it used."""
        if self._marks is not None:
            self._adds_up = self._adds_up or self._hold_any(grads)
            self._fresh_steps = min(self._fresh_steps + 1, _SURE_STEPS)
        self._marks = [None if g is None else (weakref.ref(g), g._version) for g in grads]

    def note_none(self) -> None:
        """Called where all are gone right after a step: such a loop need not be watched."""
        self._is_watching, self._marks = False, None

    def hold(self, index: int, grad: torch.Tensor) -> bool:
        """Whether a gradient is as the last step left it."""
        marks = self._marks or []
        mark = marks[index] if index < len(marks) else None
        return mark is not None and mark[0]() is grad and mark[1] == grad._version

    def watch_again(self) -> None:
        """Called where a step's gradients are still there at the boundary behind it."""
        self._is_watching = True

    def state(self, grads: Iterable[torch.Tensor | None]) -> dict[str, Any]:
        """Returns what a resume must know to judge the next step as this session would."""
        return {
            "fresh_steps": self._fresh_steps,
            "adds_up": self._adds_up,
            "goes_on": None if self._marks is None else self._hold_any(grads),
        }

    def restore(self, state: Mapping[str, Any], grads: list[torch.Tensor | None]) -> None:
        """Takes what ``state`` gave, and the gradients that were put back."""
        self._fresh_steps, self._adds_up = state["fresh_steps"], state["adds_up"]
        goes_on, self._is_watching = state["goes_on"], True
        self._marks = None
        if goes_on is not None:
            there = [g if goes_on else None for g in grads]
            self._marks = [None if g is None else (weakref.ref(g), _CHANGED) for g in there]

    def _hold_any(self, grads: Iterable[torch.Tensor | None]) -> bool:
        """Whether any gradient is one that the last step left, changed or not."""
        # Asked at each step: a call for each gradient would cost a small model more than the rest.
        for mark, grad in zip(self._marks or (), grads, strict=False):
            # One with a graph may be made of it.
            if mark and grad is not None and (mark[0]() is grad or grad.requires_grad):
                return True
        return False


class OptimizerHooks:
    """Hooks the optimizers: who stepped since the last boundary, and what to wait for before.

    Args:
        optimizers: By name.
        before_step: Called before any optimizer changes anything.
        others: Returns, by name, the parameters that no optimizer trains: a loop may do it by hand.
    """

    def __init__(
        self,
        optimizers: Mapping[str, torch.optim.Optimizer],
        before_step: Callable[[], None],
        others: Callable[[], Mapping[str, torch.Tensor]] = dict,
    ) -> None:
        self._optimizers = optimizers
        self._others = others
        self._before_step = before_step
        self._stepped: set[str] = set()
        self._leftovers = {name: Leftovers() for name in self._optimizers}
        self._handles: list[Any] = []
        for name, optimizer in self._optimizers.items():
            if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
                # One around another, made without super().__init__(): this is how PyTorch mends
                # those that it unpickles.
                torch.optim.Optimizer.__setstate__(optimizer, {})
            self._handles.append(optimizer.register_step_pre_hook(self._noting(name)))
            self._handles.append(optimizer.register_step_post_hook(self._marking(name)))

    def _noting(self, name: str) -> Any:
        stepped, before_step = self._stepped, self._before_step

        def note(*_: object) -> None:
            stepped.add(name)
            before_step()

        return note

    def _marking(self, name: str) -> Any:
        leftovers, optimizer = self._leftovers[name], self._optimizers[name]

        def mark(*_: object) -> None:
            if leftovers.is_watching:
                leftovers.note_step(_grads_of(optimizer))

        return mark

    def begin_step(self) -> None:
        """Called at each step boundary."""
        self._stepped.clear()

    def has_stepped(self) -> bool:
        """Whether any optimizer has stepped since the last boundary, or there is none."""
        return bool(self._stepped) or not self._optimizers

    def has_gathered(self) -> bool:
        """Whether there are gradients that no optimizer has stepped with."""
        return any(
            grad is not None and not self._leftovers[name].hold(index, grad)
            for name, optimizer in self._optimizers.items()
            for index, grad in enumerate(_grads_of(optimizer))
        )

    def pending(self) -> dict[str, Any]:
        """Returns the gradients that the next step of an optimizer may use.

        A loop may step first and go backward afterwards: what has changed since the step waits.
        """
        pending = {name: self._pending_of(name) for name in self._optimizers}
        others = ((name, parameter.grad) for name, parameter in self._others().items())
        by_hand = {name: grad for name, grad in others if grad is not None}
        return {**pending, OF_OTHERS: _stored(by_hand)} if by_hand else pending

    def _pending_of(self, name: str) -> dict[int, Any]:
        grads, leftovers = _grads_of(self._optimizers[name]), self._leftovers[name]
        there = {index: grad for index, grad in enumerate(grads) if grad is not None}
        if name in self._stepped:
            if not there:
                leftovers.note_none()
                return {}
            leftovers.watch_again()
        if leftovers.are_dropped:
            there = {i: grad for i, grad in there.items() if not leftovers.hold(i, grad)}
        return _stored(there)

    def leftovers(self) -> dict[str, Any]:
        """Returns, by optimizer, what is known of the gradients that its steps leave."""
        return {
            # One by one: mostly the first says it.
            name: self._leftovers[name].state(map(_grad_of, parameters_of(optimizer)))
            for name, optimizer in self._optimizers.items()
        }

    def restore_leftovers(self, known: Mapping[str, Any]) -> None:
        """Takes what ``leftovers`` gave, once the gradients are put back."""
        for name, optimizer in self._optimizers.items():
            if name in known:
                self._leftovers[name].restore(known[name], _grads_of(optimizer))

    def close(self) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()


def put_back(
    optimizers: Mapping[str, torch.optim.Optimizer],
    others: Mapping[str, torch.Tensor],
    gradients: Mapping[str, Mapping[Any, Any]],
) -> None:
    """Gives the parameters their pending gradients, and drops what a broken step has left."""
    for name, optimizer in optimizers.items():
        kept = gradients.get(name, {})
        for index, parameter in enumerate(parameters_of(optimizer)):
            parameter.grad = gradient_of(parameter, kept.get(index))
    by_hand = gradients.get(OF_OTHERS, {})
    for name, parameter in others.items():
        parameter.grad = gradient_of(parameter, by_hand.get(name))


def _grads_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor | None]:
    return list(map(_grad_of, parameters_of(optimizer)))


def _stored(gradients: dict[Any, torch.Tensor]) -> dict[Any, Any]:
    """Returns them as they are stored."""
    if _DENSE.issuperset(map(_layout_of, gradients.values())):
        return gradients
    return {key: stored_gradient(gradient) for key, gradient in gradients.items()}
