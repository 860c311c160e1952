"""What lies in a module: looked through once, and then only compared with what it was.

A save asks several times for modules, weights and plain attributes. In a model of 20,000 layers
each walk takes tens of milliseconds, and training waits.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from colabkit.frameworks.attributes import UNCHANGING
from colabkit.frameworks.torch.pieces import reshard
from colabkit.frameworks.torch.structure import names_in_groups
from colabkit.frameworks.torch.trained import parts_of

OF_ANY_MODULE = frozenset(vars(nn.Module())) - {"training"}
_HOLDERS = ("_parameters", "_buffers", "_modules", "_state_dict_hooks", "_state_dict_pre_hooks")
_DECIDING = ("state_dict", "_save_to_state_dict", "get_extra_state")
_DICTS = frozenset({dict, type(nn.Module()._forward_hooks)})
_PLAIN = frozenset({torch.Tensor, nn.Parameter})
# Fewer than this are asked for their state each time.
_MANY = 1000
_holders_of = operator.itemgetter(*_HOLDERS)
_requires_grad = operator.attrgetter("requires_grad")
_values_of = operator.methodcaller("values")
_chained = itertools.chain.from_iterable
_not_saved_in = operator.itemgetter("_non_persistent_buffers_set")


class ModuleTree:
    """The modules and tensors of a module, which stay the same until somebody changes them.

    A look compares by identity: each dict of each module, and all that is in it. What cannot
    change by itself is known by that, such as numbers and switches; modules that keep other
    attributes are named each time.

    Attributes:
        modules: By path, each once.
        parameters: By name, each once.
        buffers: By name, each once.
        version: Another after each look that found other modules, tensors or hooks.

    Args:
        module: The root.
    """

    def __init__(self, module: nn.Module) -> None:
        self._root = module
        self.version = 0
        self._touched: dict[str, None] = {}
        self._see()

    def look(self) -> None:
        """Finds out what has changed since the last look."""
        for layer in self._sharded:
            layer.reshard()
        if self._content is None or not _are_same(self._contents(), self._content):
            self._see()
        elif not self._has_values():
            changed = self._see_values()
            if not all(_is_simple(self._simple[path]) for path in changed):
                self._see()

    def flags(self) -> list[bool]:
        """Returns of each parameter, in their order, whether it is trained."""
        return list(map(_requires_grad, self.parameters.values()))

    def trainable(self) -> dict[str, bool]:
        """Returns of each parameter whether it is trained."""
        return dict(zip(self.parameters, self.flags(), strict=True))

    def searched(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Returns all modules, and those that keep more than numbers and words."""
        return list(self.modules.values()), [self.modules[path] for path in self._others]

    def take_touched(self) -> list[str]:
        """Returns the modules whose attributes may have changed since this was asked last."""
        touched = list(dict.fromkeys((*self._others, *self._touched)))
        self._touched = {}
        return touched

    @property
    def is_plain(self) -> bool:
        """Whether the state is the same tensors under the same names while ``version`` is."""
        return self._state is not None

    def state_dict(self) -> dict[str, Any]:
        """Returns what the module's ``state_dict`` gives now; many plain tensors themselves."""
        return self._state if self._state is not None else self._root.state_dict()

    def _see(self) -> None:
        self.version += 1
        self._sharded = reshard(self._root)
        self.modules = dict(self._root.named_modules())
        self.parameters = dict(self._root.named_parameters())
        self.buffers = dict(self._root.named_buffers())
        self._own = [vars(each) for each in self.modules.values()]
        self._content = self._contents()
        self._state = self._plain_state()
        self._simple = {p: o for p, o in zip(self.modules, self._own, strict=True) if _is_simple(o)}
        self._others = [path for path in self.modules if path not in self._simple]
        self._values: list[tuple[Any, ...]] = []
        self._touched = {}
        self._see_values()

    def _see_values(self) -> list[str]:
        """Returns the simple modules whose attributes are others than they were."""
        before = self._values or [()] * len(self._simple)
        own = list(self._simple.values())
        self._counts = list(map(len, own))
        self._readers = [_reader_of(tuple(each)) for each in own]
        self._values = [read(each) for read, each in zip(self._readers, own, strict=True)]
        together = zip(self._simple, self._values, before, strict=True)
        changed = [path for path, now, was in together if not _are_same(now, was)]
        self._touched |= dict.fromkeys(changed)
        return changed

    def _has_values(self) -> bool:
        """Whether the simple modules have the attributes that they had, each the same object."""
        own = self._simple.values()
        if list(map(len, own)) != self._counts:
            return False
        try:
            now = [read(each) for read, each in zip(self._readers, own, strict=True)]
        except KeyError:
            return False  # as many as before, and one of them under another name
        return all(map(operator.is_, _chained(now), _chained(self._values)))

    def _contents(self) -> list[object] | None:
        """Returns each module's class and dicts, and all that these hold."""
        try:
            holders = list(_chained(map(_holders_of, self._own)))
        except KeyError:
            return None
        if not _DICTS.issuperset(map(type, holders)):
            return None  # scripted modules keep theirs elsewhere
        not_saved = _chained(map(_not_saved_in, self._own))
        full = list(filter(None, holders))
        return [*map(type, self.modules.values()), *holders, *full, *_flat(full), *not_saved]

    def _plain_state(self) -> dict[str, torch.Tensor] | None:
        """Returns many tensors by the names they are saved under; None where a module decides."""
        if self._content is None or len(self.parameters) < _MANY:
            return None
        if any(own["_state_dict_hooks"] or own["_state_dict_pre_hooks"] for own in self._own):
            return None
        kinds = set(map(type, self.modules.values()))
        if any(getattr(kind, n) is not getattr(nn.Module, n) for kind in kinds for n in _DECIDING):
            return None
        if any(name in own for own in self._own for name in _DECIDING):
            return None
        state = self._root.state_dict(keep_vars=True)
        return state if _PLAIN.issuperset(map(type, state.values())) else None


class Trees(dict[str, ModuleTree]):
    """The trees of a run's modules by name, and what follows from all of them."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__((name, ModuleTree(module)) for name, module in modules.items())
        self._named: tuple[list[int], dict[int, str]] = ([], {})
        self._grouped: dict[str, tuple[dict[int, str], list[list[Any]], list[list[str]]]] = {}
        self._parts: tuple[Any, dict[str, str]] = (None, {})

    def look(self) -> None:
        """Finds out what has changed since the last look; the rest here speaks of the last."""
        for tree in self.values():
            tree.look()

    def names(self) -> dict[int, str]:
        """Returns what the run calls each parameter of its modules, by identity."""
        versions = [tree.version for tree in self.values()]
        if self._named[0] != versions:
            own = ((n, key, p) for n, tree in self.items() for key, p in tree.parameters.items())
            self._named = (versions, {id(p): f"{name}:{key}" for name, key, p in own})
        return self._named[1]

    def groups(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
        """Returns the names of the parameters in the groups of each optimizer."""
        return {name: self._names_in(name, each) for name, each in optimizers.items()}

    def _names_in(self, name: str, optimizer: torch.optim.Optimizer) -> list[list[str]]:
        names = self.names()
        groups = [list(group["params"]) for group in optimizer.param_groups]
        known_by, before, found = self._grouped.get(name, ({}, [], []))
        are_known = known_by is names and len(groups) == len(before)
        if not are_known or not all(itertools.starmap(_are_same, zip(groups, before, strict=True))):
            found = names_in_groups(optimizer, names)
            self._grouped[name] = (names, groups, found)
        return found

    def parts(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, str]:
        """Returns what is trained, by whom, in phrases."""
        kinds = {name: type(each).__name__ for name, each in optimizers.items()}
        flags = {name: (tree.version, tree.flags()) for name, tree in self.items()}
        groups = self.groups(optimizers)
        known = (flags, kinds, groups)
        if self._parts[0] != known:
            trainable = {name: tree.trainable() for name, tree in self.items()}
            self._parts = (known, parts_of(trainable, kinds, groups))
        return self._parts[1]


@functools.cache
def _reader_of(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Returns what reads of a module's attributes those that say something of it alone."""
    read = [name for name in names if name not in OF_ANY_MODULE]
    # Of one name alone it would return no tuple.
    return operator.itemgetter(*read, "training", "_modules")


def _is_simple(own: Mapping[str, Any]) -> bool:
    """Whether a module keeps nothing that can change and stay the same object."""
    return all(type(own[name]) in UNCHANGING for name in own.keys() - OF_ANY_MODULE)


def _flat(dicts: Collection[Mapping[Any, Any]]) -> list[Any]:
    values = _chained(map(_values_of, dicts))
    return [*_chained(dicts), *values]


def _are_same(now: Sequence[Any] | None, before: Sequence[Any]) -> bool:
    return now is not None and len(now) == len(before) and all(map(operator.is_, now, before))
