"""A trial before the first step: what is saved is put back into copies of a run's objects.

What cannot be resumed shows itself here, and not on the next machine. The objects themselves are
not touched.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import itertools
import types
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from colabkit.checkpoint import (
    Section,
    TensorBackend,
    decode,
    encode,
    members_of,
    require_distinct,
)
from colabkit.errors import StateError
from colabkit.frameworks.torch.backend import has_shared_elements
from colabkit.frameworks.torch.pieces import local
from colabkit.frameworks.torch.restoring import (
    load_optimizer,
    load_other,
    restore_tensors,
    state_of,
)
from colabkit.frameworks.torch.rollback import isolated
from colabkit.frameworks.torch.state import TorchState
from colabkit.frameworks.torch.structure import is_same
from colabkit.frameworks.users_own import attributes_of, is_of_users_class, module_of

# Above so many bytes, states are only compared in form: nothing is copied or loaded. Above so
# many objects not even that, for a session would begin a second later.
_BYTES_MAX = 64 << 20
_OBJECTS_MAX = 20_000
_ATOMS = (bool, int, float, complex, str, bytes, type(None), enum.Enum, type, types.FunctionType)
_ATOMS_OF_LIBRARIES = (torch.dtype, torch.device, torch.Size, np.generic, np.dtype)
_PLAIN_TENSORS = (torch.Tensor, nn.Parameter)
_HOLDERS = (list, tuple, dict, set, frozenset)


def try_restoring(state: TorchState, backend: TensorBackend) -> tuple[str, ...]:
    """Saves and restores in memory; returns what comes back as something else.

    Args:
        state: The run's objects, none of which is changed.
        backend: Tells tensors from other values.

    Raises:
        StateError: An object cannot be given back what it gave; names it.
    """
    sections = state.sections()
    if state.is_sharded:
        sections = [dataclasses.replace(each, state=local(each.state)) for each in sections]
    require_distinct(section.name for section in sections)
    parts = {section.name: encode(section.state, backend.is_tensor) for section in sections}
    tensors = [t for _, leaves in parts.values() for t in leaves.values()]
    if len(tensors) > _OBJECTS_MAX:
        return ()
    is_small = sum(t.nbytes for t in tensors) <= _BYTES_MAX

    def returned(section: Section) -> Any:
        skeleton, leaves = parts[section.name]
        return decode(skeleton, lambda _, key: _copied(leaves[key]) if is_small else leaves[key])

    given = {section.name: section.state for section in sections}
    back = {section.name: returned(section) for section in sections}
    # Weights are copied into those that are there, whatever their class.
    compared = [section.name for section in sections if not section.weights]
    found = [each for name in compared for each in differences(given[name], back[name], "")]
    if is_small:
        isolated(lambda: _load_into_copies(state, back))
    return tuple(f"{where} is a {then}, which comes back as a {now}" for where, then, now in found)


def _load_into_copies(state: TorchState, back: Mapping[str, Any]) -> None:
    objects = back["objects"]
    modules, optimizers, others = _copies(state)
    for name, module in modules.items():
        kept = objects["modules"][name]
        _disturb(module, leave_out={*kept["left_out"]["frozen"], *kept["noted"]})
        _require(name, restore_tensors, name, module, back.get(name, {}), kept)
        _require_same(name, state.modules[name], module)
    for name, optimizer in optimizers.items():
        _require(name, load_optimizer, optimizer, objects["optimizers"][name])
    for name, other in others.items():
        _require(name, load_other, other, objects["others"][name])
        given = state_of(state.others[name])
        for where, then, now in differences(given, state_of(other), name):
            message = f"{where} is a {then}, and comes back from load_state_dict as a {now}."
            hint = "Have load_state_dict give back what state_dict has taken."
            raise StateError(message, where=where, hint=hint)


def _require(name: str, load: Callable[..., None], *arguments: Any) -> None:
    try:
        load(*arguments)
    except Exception as error:
        message = (
            f"{name} cannot load what its own state_dict gave, so that no checkpoint could be"
            f" resumed: {type(error).__name__}: {error}"
        )
        raise StateError(message, where=name, hint="Mend its load_state_dict.") from error


@torch.no_grad()
def _disturb(module: nn.Module, *, leave_out: Collection[str]) -> None:
    """Gives a copy other values, so that what is loaded shows."""
    for name, tensor in _tensors_of(module).items():
        if name not in leave_out and not has_shared_elements(tensor):
            tensor.logical_not_() if tensor.dtype is torch.bool else tensor.zero_()


def _require_same(name: str, module: nn.Module, loaded: nn.Module) -> None:
    back = _tensors_of(loaded)
    for key, tensor in _tensors_of(module).items():
        if not is_same(back[key], tensor):
            where = f"{name}.{key}"
            message = f"{where} does not come back bit for bit from the model's own state_dict."
            hint = "Have state_dict give each weight as it is, and load_state_dict take it."
            raise StateError(message, where=where, hint=hint)


def _tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(itertools.chain(module.named_parameters(), module.named_buffers()))


def _copies(state: TorchState) -> list[dict[str, Any]]:
    """Returns copies of what can be copied without a side effect, bound to each other as they are.

    PyTorch's own optimizers and schedulers are left out: what they give they take.
    """
    optimizers = {n: o for n, o in state.optimizers.items() if not _is_pytorchs(o)}
    others = {n: o for n, o in state.others.items() if is_of_users_class(type(o))}
    wanted = (dict(state.modules), optimizers, others)
    chosen = tuple({n: v for n, v in part.items() if _can_be_copied(v)} for part in wanted)
    try:
        made = copy.deepcopy(chosen)
    except Exception:  # noqa: BLE001  # an object that refuses is not tried
        return [{}, {}, {}]
    return [
        {
            n: twin
            for n, twin in twins.items()
            if set(attributes_of(twin)) == set(attributes_of(given[n]))
        }
        for given, twins in zip(chosen, made, strict=True)
    ]


def _is_pytorchs(value: object) -> bool:
    return module_of(type(value)).startswith("torch.")


def _can_be_copied(root: object) -> bool:
    """Whether all that an object reaches is plain memory, and little of it."""
    nbytes, seen, waiting = 0, {id(root)}, [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor | np.ndarray):
            nbytes += sum(each.nbytes for each in members_of(value).values() or [value])
        for each in _parts(value):
            if isinstance(each, Foreign):
                return False
            if id(each) not in seen:
                seen.add(id(each))
                waiting.append(each)
        if nbytes > _BYTES_MAX or len(seen) > _OBJECTS_MAX:
            return False
    return True


class Foreign:
    """Stands for what may hold more than memory: a file, a thread, another library's object."""


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        if value.grad_fn is not None or type(value) not in _PLAIN_TENSORS:
            yield Foreign()
    elif isinstance(value, (*_ATOMS, *_ATOMS_OF_LIBRARIES, np.ndarray)):
        return
    elif isinstance(value, Mapping) and type(value).__module__ in {"builtins", "collections"}:
        yield from value
        yield from value.values()
    elif isinstance(value, _HOLDERS) or type(value).__module__ == "collections":
        yield from value
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif _is_known(type(value)):
        yield from attributes_of(value).values()
    else:
        yield Foreign()


def _is_known(kind: type) -> bool:
    if hasattr(kind, "__del__"):
        return False
    own = (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    return issubclass(kind, own) or is_of_users_class(kind)


def differences(given: Any, back: Any, where: str) -> Iterator[tuple[str, str, str]]:
    """Yields where two states are not of one form, with the kinds of both."""
    if given is back:
        return
    kinds = (_kind(given), _kind(back))
    if kinds[0] != kinds[1]:
        yield (where or "the state", *kinds)
    elif isinstance(given, Mapping):
        for key in dict.fromkeys([*given, *back]):
            inner = f"{where}.{key}" if where else str(key)
            if key not in given or key not in back:
                yield inner, _kind(given.get(key)), _kind(back.get(key))
            else:
                yield from differences(given[key], back[key], inner)
    elif isinstance(given, list | tuple | deque) and len(given) == len(back):
        for place, pair in enumerate(zip(given, back, strict=True)):
            yield from differences(*pair, f"{where}.{place}")


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "array" if isinstance(value, np.ndarray) else "tensor"
        if not isinstance(value, np.ndarray | nn.Parameter) and type(value) not in _PLAIN_TENSORS:
            kind = type(value).__name__
        return f"{kind} of {value.dtype} {list(value.shape)}"
    if isinstance(value, torch.Size):
        return "tuple"
    return type(value).__name__


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf.copy()
