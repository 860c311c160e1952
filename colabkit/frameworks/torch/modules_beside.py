"""Modules, optimizers and schedules that live beside a run's objects, and change."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from colabkit.frameworks.begun_anew import left_out
from colabkit.frameworks.bystanders import Bystanders
from colabkit.frameworks.torch.carried import trains_others
from colabkit.frameworks.users_own import attributes_of
from colabkit.storage import hash_of

_KINDS = (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
_WHOLE_MAX, _SAMPLES = 1 << 16, 4096  # elements
_DEPTH_MAX, _ROW_MAX, _LOOKED_AT = 4, 1000, 4


class ModulesBeside:
    """Finds what the loops of a user's own change of PyTorch, and no object of the run holds.

    Args:
        objects: Those of the run.
    """

    def __init__(self, objects: Iterable[Any]) -> None:
        self._objects = list(objects)
        self._kept: Sequence[Any] = ()
        self._marks = _Marks()
        self._found = Bystanders(self._mark_of)
        self._own_tensors: set[int] = set()
        self._reasons: dict[str, None] = {}

    def watch(self, reached: Mapping[str, Any], kept: Sequence[Any]) -> None:
        """Takes down those that the loop reaches and the run does not hold.

        Args:
            reached: What the loop reaches, by path.
            kept: What the run keeps of the loop's variables.
        """
        self._kept = kept
        held = self._held()
        tensors = (t for e in held.values() if isinstance(e, nn.Module) for t in _tensors_of(e))
        self._own_tensors = {id(each) for each in tensors}
        found = ((p, part) for p, each in reached.items() for part in _parts_of(each))
        self._found.take_down((path, each) for path, each in found if not _is_held(each, held))

    def reasons(self) -> tuple[str, ...]:
        """Returns what was found up to now."""
        if changed := self._found.changed():
            held = self._held()
            known = {*held, *self._own_tensors}
            said = (
                left_out(path, trains_others=trains_others(each, known))
                for path, each in changed
                if not _is_held(each, held)
            )
            self._reasons |= dict.fromkeys(said)
        return tuple(self._reasons)

    def _held(self) -> dict[int, Any]:
        """Returns by id what the run's objects are and have."""
        found: dict[int, Any] = {}
        for each in (*self._objects, *self._kept):
            _gather(each, found)
        return found

    def _mark_of(self, value: Any) -> object | None:
        if isinstance(value, nn.Module):
            own = [each for each in _tensors_of(value) if id(each) not in self._own_tensors]
            return tuple(map(self._marks.of, own)) if own else None
        if isinstance(value, torch.optim.Optimizer):
            return _mark_of_optimizer(value)
        return getattr(value, "last_epoch", None), getattr(value, "_step_count", None)


class _Marks:
    """Hashes of tensors, made again where one may have been written."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[weakref.ref[Any], object, str]] = {}

    def of(self, tensor: torch.Tensor) -> str:
        """Returns a hash of what it holds, "" where nobody can tell."""
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            return ""
        with contextlib.suppress(Exception):  # of a kind of its own
            flat = tensor.detach().reshape(-1)
            # What is written through .data is not counted.
            ends = flat[:: max(1, flat.numel() - 1)].tolist()
            stamp = (tensor._version, tensor.data_ptr(), ends)
            kept = self._made.get(id(tensor))
            if kept is None or kept[0]() is not tensor or kept[1] != stamp:
                kept = self._made[id(tensor)] = (weakref.ref(tensor), stamp, _hash_of(flat))
            return kept[2]
        return ""


def _hash_of(flat: torch.Tensor) -> str:
    if flat.numel() > _WHOLE_MAX:
        flat = flat[:: flat.numel() // _SAMPLES]
    # NumPy knows no bfloat16.
    return hash_of(np.ascontiguousarray(flat.cpu().contiguous().view(torch.uint8).numpy()))


def _mark_of_optimizer(optimizer: torch.optim.Optimizer) -> object:
    """Returns what each step changes that has moments or a count, or another rate."""
    states = list(optimizer.state.values())
    looked_at = [*states[:_LOOKED_AT], *states[-_LOOKED_AT:]]
    kept = [
        (each._version, each.data_ptr()) if isinstance(each, torch.Tensor) else each
        for state in looked_at
        if isinstance(state, Mapping)
        for each in state.values()
        if isinstance(each, torch.Tensor | int | float)
    ]
    groups = [each for group in optimizer.param_groups for each in group.values()]
    return len(states), kept, [each for each in groups if isinstance(each, int | float)]


def _tensors_of(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yields a module's own tensors, without those of its parts."""
    for each in (*module._parameters.values(), *module._buffers.values()):
        if isinstance(each, torch.Tensor):
            yield each


def _gather(value: Any, found: dict[int, Any], depth: int = 0) -> None:
    if depth > _DEPTH_MAX or id(value) in found:
        return
    if isinstance(value, nn.Module):
        found |= {id(each): each for each in value.modules()}
    elif isinstance(value, _KINDS):
        found[id(value)] = value
    if isinstance(value, list | tuple | set | dict):
        parts = [*(value.values() if isinstance(value, dict) else value)][:_ROW_MAX]
    else:
        parts = list(attributes_of(value).values())
    # A schedule knows its optimizer, and saves nothing of it.
    is_schedule = isinstance(value, torch.optim.lr_scheduler.LRScheduler)
    for each in parts:
        if not (is_schedule and isinstance(each, torch.optim.Optimizer)):
            _gather(each, found, depth + 1)


def _is_held(value: Any, held: Mapping[int, Any]) -> bool:
    """Whether a run holds something, or what it is around."""
    if id(value) in held:
        return True
    if not isinstance(value, torch.optim.Optimizer):
        return False
    others = [each for each in held.values() if isinstance(each, torch.optim.Optimizer)]
    parts = set(map(id, attributes_of(value).values()))
    return any(each.state is value.state or id(each) in parts for each in others)


def _parts_of(value: Any) -> Iterable[Any]:
    if isinstance(value, nn.Module):
        return value.modules()
    return [value] if isinstance(value, _KINDS) else ()
