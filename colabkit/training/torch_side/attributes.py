"""Plain attributes that training changes: tensors, arrays, numbers, and containers of these."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from colabkit.storage import hash_of

_SCALARS = (bool, int, float, complex, str, bytes, type(None), np.generic)
_DEPTH_MAX, _ITEMS_MAX = 8, 200_000
_NOTHING = object()


class Attributes:
    """The plain attributes of an object that have changed since it was made.

    What training has left alone is the notebook's own business. What holds parameters, or
    anything that is not plain, is left to whom it belongs to.

    Args:
        owner: A callback, an optimizer, or a module.
        leave_out: Names that others look after.
        scalars: Whether to look after single numbers and strings too.
    """

    def __init__(
        self, owner: Any, *, leave_out: frozenset[str] = frozenset(), scalars: bool = True
    ) -> None:
        self._owner = owner
        self._scalars = scalars
        self._leave_out = leave_out
        own = self._own()
        # Kept, so that no later object takes the place in memory by which these are known.
        self._kept = own
        self._marks = {name: _mark(value, 0) for name, value in own.items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns the changed ones by name."""
        changed = {}
        for name, value in self._own().items():
            mark = _mark(value, 0)
            if mark is not None and mark != self._marks.get(name, _NOTHING):
                changed[name] = _detached(value)
        return changed

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts them back: into the tensors and lists that are there, which others may hold too."""
        device = _device_of(self._owner)
        for name, value in state.items():
            there = getattr(self._owner, name, None)
            if not isinstance(there, nn.Module | nn.Parameter):
                setattr(self._owner, name, _put(there, value, device))

    def _own(self) -> dict[str, Any]:
        found = getattr(self._owner, "__dict__", {})
        own = {name: value for name, value in found.items() if name not in self._leave_out}
        if self._scalars:
            return own
        return {name: value for name, value in own.items() if not isinstance(value, _SCALARS)}


def _mark(value: Any, depth: int) -> Any:
    """Returns what differs once a value has changed, None for a value that is not plain."""
    if isinstance(value, _SCALARS):
        return type(value), repr(value)
    if isinstance(value, torch.Tensor):
        if isinstance(value, nn.Parameter) or value.layout is not torch.strided:
            return None
        return id(value), value._version, value.data_ptr()
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else (value.shape, hash_of(value.tobytes()))
    if depth > _DEPTH_MAX:
        return None
    if isinstance(value, Mapping):
        parts: Any = (part for pair in value.items() for part in pair)
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        parts = value
    else:
        return None
    if len(value) > _ITEMS_MAX:
        return None
    marks = [_mark(part, depth + 1) for part in parts]
    return None if None in marks else (type(value), marks)


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach()
    return value


def _put(there: Any, value: Any, device: torch.device | None) -> Any:
    if isinstance(value, torch.Tensor):
        if isinstance(there, torch.Tensor):
            fits = (there.shape, there.dtype) == (value.shape, value.dtype)
            if fits and not there.requires_grad and 0 not in there.stride():
                return there.copy_(value)
            device = there.device
        return value.clone() if device is None else value.to(device, copy=True)
    if isinstance(value, list | collections.deque):
        kept = list(there) if type(there) is type(value) else []
        kept += [None] * (len(value) - len(kept))
        items = [_put(own, each, device) for own, each in zip(kept, value, strict=False)]
        target = there if type(there) is type(value) else value
        target.clear()
        target.extend(items)
        return target
    if isinstance(value, dict):
        is_alike = type(there) is type(value)
        own = dict(there) if is_alike else {}
        pairs = [(key, _put(own.get(key), each, device)) for key, each in value.items()]
        mapping = there if is_alike else value
        mapping.clear()
        mapping.update(pairs)
        return mapping
    if isinstance(value, tuple):
        return tuple.__new__(type(value), (_put(None, each, device) for each in value))
    return value


def _device_of(owner: Any) -> torch.device | None:
    parameters = owner.parameters() if isinstance(owner, nn.Module) else ()
    return next((each.device for each in parameters), None)


def of_optimizer(optimizer: torch.optim.Optimizer) -> Attributes:
    """Returns what an optimizer keeps beside what every one keeps, and its ``state_dict`` says."""
    plain = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    names = {*vars(plain), "step", "_opt_called", "_step_count"}
    return Attributes(optimizer, leave_out=frozenset(names))


def inner_optimizers(optimizers: Mapping[str, Any]) -> dict[str, torch.optim.Optimizer]:
    """Returns the optimizers that others keep as attributes, at any depth, by path."""
    found: dict[str, torch.optim.Optimizer] = {}
    seen = {id(optimizer) for optimizer in optimizers.values()}
    waiting = list(optimizers.items())
    while waiting:
        path, outer = waiting.pop(0)
        for name, value in vars(outer).items():
            several = value if isinstance(value, list | tuple) else [value]
            for place, each in enumerate(several):
                if isinstance(each, torch.optim.Optimizer) and id(each) not in seen:
                    seen.add(id(each))
                    inner = f"{path}.{name}" if each is value else f"{path}.{name}.{place}"
                    found[inner] = each
                    waiting.append((inner, each))
    return found
