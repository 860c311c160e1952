"""What lies in a module: looked through once, and then only compared with what it was.

A save asks several times for modules, weights and plain attributes. In a model of 20,000 layers
each walk takes tens of milliseconds, and training waits.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from colabkit.frameworks.paths import UNCHANGING
from colabkit.frameworks.torch.backend import have_marks, marks_of
from colabkit.frameworks.torch.pieces import reshard
from colabkit.frameworks.torch.structure import names_in_groups
from colabkit.frameworks.torch.trained import parts_of

OF_ANY_MODULE = frozenset(vars(nn.Module())) - {"training"}
_HOLDERS = ("_parameters", "_buffers", "_modules", "_state_dict_hooks", "_state_dict_pre_hooks")
_DECIDING = ("state_dict", "_save_to_state_dict", "get_extra_state")
_DICTS = frozenset({dict, type(nn.Module()._forward_hooks)})
PLAIN = frozenset({torch.Tensor, nn.Parameter})
_UNCHANGING = UNCHANGING | {torch.dtype, torch.device}
_TUPLES = frozenset({tuple, torch.Size})
# Of a longer list the items are not compared each time.
_ITEMS_MAX = 16
# Fewer than this are asked for their state each time.
_MANY = 1000
# So many modules at a time stay in the processor's cache until all of them was read.
_FEW = 256
# No two trees have one.
_numbers = itertools.count()
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
        tied: The names of each parameter that has several.
        buffers: By name, each once.
        version: Another after each look that found other modules, tensors or hooks.
        places: Another after each look that found a tensor of a plain state in other memory, or
            of another form; None where that is not known.

    Args:
        module: The root.
    """

    def __init__(self, module: nn.Module) -> None:
        self._root = module
        self.version = 0
        self.places: int | None = None
        self._marks: list[list[Any]] | None = None
        self._touched: dict[str, None] = {}
        self._see()
        self._look_at_places()

    def look(self) -> None:
        """Finds out what has changed since the last look."""
        for layer in self._sharded:
            layer.reshard()
        is_known, has_values = self._compare()
        if not is_known:
            self._see()
        elif not has_values:
            changed = self._see_values()
            if not all(map(_is_simple, changed.values())):
                self._see()
        self._look_at_places()

    def _look_at_places(self) -> None:
        tensors = [] if self._state is None else list(self._state.values())
        if self._state is None or not have_marks(tensors, self._marks):
            self._marks = None if self._state is None else marks_of(tensors)
            self.places = None if self._marks is None else next(_numbers)

    @property
    def form(self) -> tuple[int, int] | None:
        """Returns what is the same while names, tensors, their forms and places are, if known."""
        return None if self.places is None else (self.version, self.places)

    def flags(self) -> list[bool]:
        """Returns of each parameter, in their order, whether it is trained."""
        return list(map(_requires_grad, self.parameters.values()))

    def trainable(self) -> dict[str, bool]:
        """Returns of each parameter whether it is trained."""
        return dict(zip(self.parameters, self.flags(), strict=True))

    def searched(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Returns all modules, and those that keep more than simple attributes."""
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

    def _compare(self) -> tuple[bool, bool]:
        """Returns whether all modules hold what they held, and have the attributes they had."""
        has_values = True
        for few in self._few:
            if not few.has_content():
                return False, False
            has_values = has_values and few.has_values()
        return True, has_values

    def _see(self) -> None:
        self.version += 1
        self._sharded = reshard(self._root)
        self.modules = dict(self._root.named_modules())
        self.parameters, self.tied = _named(self._root)
        self.buffers = dict(self._root.named_buffers())
        every = iter(self.modules.items())
        self._few = [_Few(each) for each in iter(lambda: dict(itertools.islice(every, _FEW)), {})]
        self._state = self._plain_state()
        simple = {path for few in self._few for path in few.simple}
        self._others = [path for path in self.modules if path not in simple]
        self._touched = {}
        self._see_values()

    def _see_values(self) -> dict[str, dict[str, Any]]:
        """Returns the simple modules whose attributes are others than they were."""
        changed = {path: few.simple[path] for few in self._few for path in few.see_values()}
        self._touched |= dict.fromkeys(changed)
        return changed

    def _plain_state(self) -> dict[str, torch.Tensor] | None:
        """Returns many tensors by the names they are saved under; None where a module decides."""
        if len(self.parameters) < _MANY or any(few.content is None for few in self._few):
            return None
        every = [vars(each) for each in self.modules.values()]
        if any(own["_state_dict_hooks"] or own["_state_dict_pre_hooks"] for own in every):
            return None
        kinds = set(map(type, self.modules.values()))
        if any(getattr(kind, n) is not getattr(nn.Module, n) for kind in kinds for n in _DECIDING):
            return None
        if any(name in own for own in every for name in _DECIDING):
            return None
        state = self._root.state_dict(keep_vars=True)
        return state if PLAIN.issuperset(map(type, state.values())) else None


class _Few:
    """Some of a tree's modules, and what they held at the last look.

    Attributes:
        content: Each module's class and dicts, and all that these hold; None where it is a
            scripted one, which keeps its own elsewhere.
        simple: By path, the attributes of those that keep nothing but numbers, words, and short
            lists and tuples of these.

    Args:
        modules: By path.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = list(modules.values())
        self._own = [vars(each) for each in self._modules]
        self.content = self._content_now()
        own = zip(modules, self._own, strict=True)
        self.simple = {path: each for path, each in own if _is_simple(each)}
        self._values: list[tuple[Any, ...]] = [()] * len(self.simple)

    def has_content(self) -> bool:
        """Whether they hold what they held."""
        return self.content is not None and _are_same(self._content_now(), self.content)

    def see_values(self) -> list[str]:
        """Returns the simple ones whose attributes are others than they were."""
        before, own = self._values, list(self.simple.values())
        self._counts = list(map(len, own))
        self._readers = [_reader_of(tuple(each), _lists_in(each)) for each in own]
        self._values = [read(each) for read, each in zip(self._readers, own, strict=True)]
        together = zip(self.simple, self._values, before, strict=True)
        return [path for path, now, was in together if not _are_same(now, was)]

    def has_values(self) -> bool:
        """Whether the simple ones have the attributes that they had, each the same object."""
        own = self.simple.values()
        if list(map(len, own)) != self._counts:
            return False
        try:
            now = [read(each) for read, each in zip(self._readers, own, strict=True)]
        except KeyError:
            return False  # as many as before, and one of them under another name
        are_as_many = list(map(len, now)) == list(map(len, self._values))
        return are_as_many and all(map(operator.is_, _chained(now), _chained(self._values)))

    def _content_now(self) -> list[object] | None:
        try:
            holders = list(_chained(map(_holders_of, self._own)))
        except KeyError:
            return None
        if not _DICTS.issuperset(map(type, holders)):
            return None
        not_saved = _chained(map(_not_saved_in, self._own))
        full = list(filter(None, holders))
        return [*map(type, self._modules), *holders, *full, *_flat(full), *not_saved]


class Trees(dict[str, ModuleTree]):
    """The trees of a run's modules by name, and what follows from all of them."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__((name, ModuleTree(module)) for name, module in modules.items())
        self._named: tuple[list[int], dict[int, str]] = ([], {})
        self._grouped: dict[str, _Grouped] = {}
        self._without: tuple[list[Any], dict[str, torch.Tensor]] = ([], {})
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
        return {name: self._look_into(name, each).found for name, each in optimizers.items()}

    def trained(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> Hashable | None:
        """Returns what is equal while optimizers train the same tensors, each in its place.

        None where that is not known.
        """
        looks = [self._look_into(name, each) for name, each in optimizers.items()]
        forms = [tree.form for tree in self.values()]
        is_known = None not in forms and not any(each.unowned for each in looks)
        return (*forms, *looks) if is_known else None

    def unowned(self, name: str, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """Returns what an optimizer trains and no module of the run holds, by its place."""
        return self._look_into(name, optimizer).unowned

    def without(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
        """Returns, by name, the parameters of modules that none of the optimizers trains."""
        names = self.names()
        looks = [self._look_into(name, each) for name, each in optimizers.items()]
        known = [names, *looks]
        if not _are_same(known, self._without[0]):
            trained = {id(p) for each in looks for group in each.groups for p in group}
            found: dict[str, torch.Tensor] = {
                f"{name}.{key}": parameter
                for name, tree in self.items()
                for key, parameter in tree.parameters.items()
                if id(parameter) not in trained
            }
            self._without = (known, found)
        return self._without[1]

    def _look_into(self, name: str, optimizer: torch.optim.Optimizer) -> _Grouped:
        names = self.names()
        groups = [list(group["params"]) for group in optimizer.param_groups]
        before = self._grouped.get(name)
        if before is None or not before.is_of(names, groups):
            trained = itertools.chain.from_iterable(groups)
            unowned = {f"{place}": p for place, p in enumerate(trained) if id(p) not in names}
            before = _Grouped(names, groups, names_in_groups(optimizer, names), unowned)
            self._grouped[name] = before
        return before

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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Grouped:
    """What an optimizer trains: by group, by the run's names, and what has none."""

    names: dict[int, str]
    groups: list[list[torch.Tensor]]
    found: list[list[str]]
    unowned: dict[str, torch.Tensor]

    def is_of(self, names: dict[int, str], groups: list[list[torch.Tensor]]) -> bool:
        """Whether the names and groups are still these."""
        is_known = names is self.names and len(groups) == len(self.groups)
        return is_known and all(map(_are_same, groups, self.groups))


def _named(module: nn.Module) -> tuple[dict[str, nn.Parameter], list[list[str]]]:
    """Returns a module's parameters by their first names, and all names of those with several."""
    every = dict(module.named_parameters(remove_duplicate=False))
    names: dict[int, list[str]] = {}
    for name, parameter in every.items():
        names.setdefault(id(parameter), []).append(name)
    first = {each[0]: every[each[0]] for each in names.values()}
    return first, [each for each in names.values() if len(each) > 1]


@functools.cache
def _reader_of(
    names: tuple[str, ...], lists: tuple[str, ...]
) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Returns what reads of a module's attributes those that say something of it alone.

    Args:
        names: Of all attributes.
        lists: Of those whose items are read as well.
    """
    read = [name for name in names if name not in OF_ANY_MODULE]
    # Of one name alone it would return no tuple.
    values_of = operator.itemgetter(*read, "training", "_modules")
    if not lists:
        return values_of

    def values_and_items_of(own: Mapping[str, Any]) -> tuple[Any, ...]:
        # What has come in the place of a list may be read only once, or has no end.
        found = [own[name] for name in lists]
        return (*values_of(own), *_chained(each for each in found if type(each) is list))

    return values_and_items_of


def _lists_in(own: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name, value in own.items() if type(value) is list)


def _is_simple(own: Mapping[str, Any]) -> bool:
    """Whether a module keeps nothing that can change, but short lists of what cannot."""
    values = [own[name] for name in own.keys() - OF_ANY_MODULE]
    return all(
        type(each) in UNCHANGING
        or (type(each) is list and len(each) <= _ITEMS_MAX and all(map(_cannot_change, each)))
        or _cannot_change(each)
        for each in values
    )


def _cannot_change(value: Any) -> bool:
    kind = type(value)
    return kind in _UNCHANGING or (kind in _TUPLES and all(map(_cannot_change, value)))


def _flat(dicts: Collection[Mapping[Any, Any]]) -> list[Any]:
    values = _chained(map(_values_of, dicts))
    return [*_chained(dicts), *values]


def _are_same(now: Sequence[Any] | None, before: Sequence[Any]) -> bool:
    return now is not None and len(now) == len(before) and all(map(operator.is_, now, before))
