"""Objects with a state of their own that others keep as attributes: averaged copies, say."""

from __future__ import annotations

import ast
import collections
import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from colabkit.checkpoint import encode
from colabkit.frameworks.attributes import Attributes, has_state
from colabkit.frameworks.torch.alignment import realigned
from colabkit.frameworks.torch.metrics import keep_sums
from colabkit.frameworks.torch.pieces import cut_like, has_pieces
from colabkit.frameworks.torch.restoring import load_optimizer
from colabkit.frameworks.torch.structure import load_module
from colabkit.frameworks.torch.tensor_values import TensorValues
from colabkit.frameworks.users_own import is_of_users_class, set_attribute

# An attribute, or what a list or dict has there.
_PLACE = re.compile(r"(?P<name>[^.\[\]]+)(\[(?P<key>[^\[\]]+)\])?")
_ENDS = (slice(0, 1), slice(-1, None))
_KINDS = (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)


def of_optimizer(optimizer: torch.optim.Optimizer) -> Attributes:
    """Returns what an optimizer keeps beside what every one keeps, and its ``state_dict`` says."""
    plain = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    names = {*vars(plain), "step", "_opt_called", "_step_count"}
    return Attributes(optimizer, TensorValues(), leave_out=frozenset(names))


def of_scheduler(scheduler: torch.optim.lr_scheduler.LRScheduler) -> Attributes:
    """Returns what a schedule of the user's own class keeps and its ``state_dict`` leaves out."""
    names = {*vars(_plain_scheduler()), *scheduler.state_dict()}
    return Attributes(scheduler, TensorValues(), leave_out=frozenset(names))


def is_users_scheduler(value: Any) -> bool:
    """Whether a value is a schedule of a class of the user's own."""
    is_one = isinstance(value, torch.optim.lr_scheduler.LRScheduler)
    return is_one and is_of_users_class(type(value))


def _plain_scheduler() -> torch.optim.lr_scheduler.LRScheduler:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    return torch.optim.lr_scheduler.StepLR(optimizer, 1)


def inner_optimizers(optimizers: Mapping[str, Any]) -> dict[str, torch.optim.Optimizer]:
    """Returns the optimizers that others keep as attributes, at any depth, by path."""
    found: dict[str, torch.optim.Optimizer] = {}
    seen = {id(optimizer) for optimizer in optimizers.values()}
    waiting = list(optimizers.items())
    while waiting:
        path, outer = waiting.pop(0)
        for name, value in vars(outer).items():
            for place, each in _places(value):
                if isinstance(each, torch.optim.Optimizer) and id(each) not in seen:
                    seen.add(id(each))
                    inner = f"{path}.{name}{place}"
                    found[inner] = each
                    waiting.append((inner, each))
    return found


def _places(value: Any) -> Iterable[tuple[str, Any]]:
    """Returns a value, or what a container holds, by what its path ends in."""
    if isinstance(value, list | tuple):
        return [(f".{place}", each) for place, each in enumerate(value)]
    if isinstance(value, dict):
        return [(f".{key}", each) for key, each in value.items()]
    return [("", value)]


class HeldObjects:
    """What objects of a run hold that has a state of its own, and the run does not know.

    Args:
        known: The objects that the run saves itself.
    """

    def __init__(self, known: Iterable[object]) -> None:
        self._known = list(known)
        self._ids = {id(each) for each in self._known}
        # All modules within those of the run are known.
        modules = [each for each in self._known if isinstance(each, nn.Module)]
        self._weights = {id(p) for each in modules for p in each._parameters.values()}
        # What a module was at the first look: a frozen teacher stays it, and costs no save a thing.
        self._first: dict[str, list[Any]] = {}
        # Under which path else each object was known then.
        self._shared: dict[str, str] = {}
        self._restored: set[str] = set()
        self._judged: set[str] | None = None
        self._waiting: dict[str, Any] = {}
        self.lost: dict[str, str] = {}

    def state_dict(self, memories: Mapping[str, Attributes]) -> dict[str, Any]:
        """Returns their states by path, of what the memories have seen of the run's objects."""
        found = self._found(memories)
        if self._judged is None:
            self._look(found)
        assert self._judged is not None  # noqa: S101  # since the first look
        for path in [each for each in found if each not in self._judged]:
            self._judged.add(path)
            has_place = _PLACE.fullmatch(path.partition(":")[2]) is not None
            if not has_place or self._like(found[path].state_dict()) is None:
                self.lost[path] = type(found[path]).__name__
        return self._states(found)

    def _look(self, found: Mapping[str, Any]) -> None:
        """Takes down what there is before the first step of a session."""
        self._judged = {*found, *self._waiting}
        modules = {path: e for path, e in found.items() if isinstance(e, nn.Module)}
        self._first = {path: _look_at(each) for path, each in modules.items()}
        self._shared = _shared_in(found)

    def states(self, memories: Mapping[str, Attributes]) -> dict[str, Any]:
        """Returns the states of what the memories have seen at their last look."""
        return self._states(self._found(memories))

    def _states(self, found: Mapping[str, Any]) -> dict[str, Any]:
        shared = _shared_in(found)
        states: dict[str, Any] = {}
        for path, each in found.items():
            if path not in shared:
                if self._has_changed(path, each):
                    states[path] = {"state": each.state_dict(), **_modes_of(each)}
            elif path in self._restored or shared[path] != self._shared.get(path):
                states[path] = {"same_as": shared[path]}
        return states

    def _has_changed(self, path: str, each: Any) -> bool:
        if path not in self._first or path in self._restored or path in self._waiting:
            return True
        return self._first[path] != _look_at(each)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keeps the states until the objects are there, which callbacks make when they begin."""
        self._waiting = dict(state)

    def load_waiting(self, memories: Mapping[str, Attributes]) -> None:
        """Loads what is there now; copies of a model that training made are made again."""
        if not self._waiting and self._judged is not None:
            return
        found, loaded = self._found_anew(memories), dict[str, Any]()
        for path, kept in self._waiting.items():
            self._restored.add(path)
            each = found.get(path)
            if "same_as" in kept:
                first = kept["same_as"]  # of one that nothing has changed a checkpoint has nothing
                each = loaded.get(first, found.get(first, each))
                if each is not None:
                    _put(memories, path, each)
            elif each is None or any(each is other for other in loaded.values()):
                each = self._made_again(memories, path, kept)
            if each is None:
                continue
            loaded[path] = each
            if "same_as" not in kept:
                _load(path, each, kept["state"])
        self._waiting = {}
        if self._judged is None:
            # A resume saves nothing before its first step.
            self._look(self._found_anew(memories) if loaded else found)

    def _found_anew(self, memories: Mapping[str, Attributes]) -> dict[str, Any]:
        for memory in memories.values():
            memory.state_dict()
        return self._found(memories)

    def tensors(self, memories: Mapping[str, Attributes]) -> dict[str, torch.Tensor]:
        """Returns the weights and buffers of the modules among them, by path and name."""
        found = self._found(memories).items()
        modules = {path: each for path, each in found if isinstance(each, nn.Module)}
        return {
            f"{path}.{name}": tensor
            for path, each in modules.items()
            for name, tensor in (*each.named_parameters(), *each.named_buffers())
        }

    def _found(self, memories: Mapping[str, Attributes]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, memory in memories.items():
            for path, each in memory.with_state.items():
                is_known = id(each) in self._ids or self._is_of_weights(each)
                if not is_known and _can_be_saved(each):
                    keep_sums(each)
                    found[f"{name}:{path}"] = each
        return found

    def _is_of_weights(self, each: Any) -> bool:
        """Whether it is a wrapper of a module that the run saves itself."""
        own = {id(p) for p in each.parameters()} if isinstance(each, nn.Module) else set()
        return bool(own) and own <= self._weights

    def _like(self, state: Mapping[str, Any]) -> nn.Module | None:
        """Returns the module of the run that an object with this state is a copy of."""
        for module in self._known:
            # Of one in pieces PyTorch refuses to make a copy.
            if not isinstance(module, nn.Module) or has_pieces(module):
                continue
            if _forms(module.state_dict()) == _forms(state):
                return module
        return None

    def _made_again(
        self, memories: Mapping[str, Attributes], path: str, kept: Mapping[str, Any]
    ) -> nn.Module | None:
        module = self._like(kept["state"])
        if module is None:
            return None
        made = copy.deepcopy(module).requires_grad_(requires_grad=False)
        for name, each in made.named_modules() if "training" in kept else ():
            each.training = kept["training"] is not (name in kept["modes"])
        return made if _put(memories, path, made) else None


def _shared_in(found: Mapping[str, Any]) -> dict[str, str]:
    """Returns the paths to what another leads to as well, each with the first to it."""
    first: dict[int, str] = {}
    ways = {path: first.setdefault(id(each), path) for path, each in found.items()}
    return {path: way for path, way in ways.items() if path != way}


def _modes_of(value: Any) -> dict[str, Any]:
    """Returns whether a module trains, and the names of those within it that do otherwise."""
    if not isinstance(value, nn.Module):
        return {}
    others = [n for n, each in value.named_modules() if each.training is not value.training]
    return {"training": value.training, "modes": others}


def _load(path: str, value: Any, state: Any) -> None:
    own = value.state_dict()
    if isinstance(value, torch.optim.Optimizer):
        load_optimizer(value, state)
    elif isinstance(value, nn.Module):
        load_module(path, value, cut_like(own, state))
    else:
        value.load_state_dict(realigned(cut_like(own, state)))


def _put(memories: Mapping[str, Attributes], path: str, value: Any) -> bool:
    """Puts a value where a path leads; returns whether it leads anywhere."""
    name, _, way = path.partition(":")
    place = _PLACE.fullmatch(way)
    if place is None or name not in memories:
        return False
    owner = memories[name].owner
    if place["key"] is None:
        set_attribute(owner, place["name"], value)
        return True
    holder, key = getattr(owner, place["name"], None), ast.literal_eval(place["key"])
    if isinstance(holder, list | collections.deque) and key == len(holder):
        holder.append(value)
    elif isinstance(holder, list | collections.deque | dict):
        holder[key] = value
    return isinstance(holder, list | collections.deque | dict)


def _can_be_saved(value: Any) -> bool:
    if isinstance(value, _KINDS):
        return True
    # A loader is read while it is saved.
    if not has_state(value) or hasattr(value, "__iter__"):
        return False
    return is_of_users_class(type(value)) or _has_plain_state(value)


def _has_plain_state(value: Any) -> bool:
    """Whether what a library's object gives can be stored, which its user could not mend."""
    try:
        encode(value.state_dict(), torch.is_tensor)
    except Exception:  # noqa: BLE001  # a library's own state_dict may raise anything
        return False
    return True


def _forms(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: (t.dtype, t.shape) for key, t in state.items() if isinstance(t, torch.Tensor)}


def _look_at(module: nn.Module) -> list[Any]:
    """Returns what differs once any tensor of a module has changed.

    What is written past PyTorch's counters, an average through ``.data`` say, is seen by the first
    and last elements.
    """
    tensors = [t for t in module.state_dict(keep_vars=True).values() if torch.is_tensor(t)]
    if len({t.device for t in tensors}) != 1 or not all(map(_can_be_looked_at, tensors)):
        return [object()]  # taken to be another each time
    ends = [t.detach()[(end,) * t.ndim].reshape(-1) for t in tensors for end in _ENDS]
    counted = [(id(t), t.data_ptr(), t._version) for t in tensors]
    return [counted, torch.cat([each.double() for each in ends]).tolist()]


def _can_be_looked_at(tensor: torch.Tensor) -> bool:
    is_plain = type(tensor) in {torch.Tensor, nn.Parameter} and tensor.layout == torch.strided
    is_odd = tensor.is_meta or tensor.is_inference() or tensor.is_quantized
    return is_plain and not (is_odd or tensor.is_complex())
