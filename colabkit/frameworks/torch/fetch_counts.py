"""Numbers that fetching changes and goes by: a dataset or its collation that counts its calls.

A resume has them begin anew. Where they matter late, by the thousandth batch say, a batch that is
fetched twice tells nothing.
"""

from __future__ import annotations

import collections
import dis
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from colabkit.frameworks.code_variables import CodeVariables
from colabkit.frameworks.named_in_code import function_of
from colabkit.frameworks.paths import UNCHANGING
from colabkit.frameworks.torch.dataset_watch import simple_in
from colabkit.frameworks.users_own import is_of_users_class, is_users_module

_FETCHING = ("__getitem__", "__getitems__", "__call__")
_LOADS = frozenset({"LOAD_ATTR", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_METHOD"})
_STORES = frozenset({"STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF"})


class FetchCounts:
    """The numbers, switches and words of a dataset, its collation, and what their code names.

    Args:
        dataset: The dataset.
        collate: What makes batches of its items, if anything does.
    """

    def __init__(self, dataset: Any, collate: Callable[[Any], Any] | None) -> None:
        owner = getattr(collate, "__self__", collate)
        self._owners = [each for each in (dataset, owner) if is_of_users_class(type(each))]
        self._functions = _Code(self._owners, collate)
        self._named = CodeVariables(self._functions.every)

    def now(self) -> dict[str, Any]:
        """Returns them by name."""
        own = {name: each for owner in self._owners for name, each in simple_in(owner)}
        named = self._named.variables().items()
        return {n: each for n, each in (*own.items(), *named) if type(each) in UNCHANGING}

    def gone_by(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        """Returns the names of those that have changed and that code goes by."""
        # A NaN is no other number for being unequal to itself.
        changed = [n for n, value in now.items() if repr(then.get(n, value)) != repr(value)]
        return [name for name in changed if self._functions.reads(name.rpartition(".")[2])]


class _Code:
    """The functions of the user's that a fetch may run."""

    def __init__(self, owners: list[Any], collate: Any) -> None:
        kinds = {type(part) for owner in owners for part in (owner, *_parts_of(owner))}
        self._kinds = [kind for kind in kinds if is_of_users_class(kind)]
        self.every: list[types.FunctionType] = []
        while isinstance(collate, functools.partial):
            collate = collate.func
        waiting = [getattr(collate, "__func__", collate)]
        waiting += [each for name in _FETCHING for each in self._methods(name)]
        while waiting:
            function = waiting.pop()
            if not isinstance(function, types.FunctionType) or function in self.every:
                continue
            if is_users_module(function.__module__ or ""):
                self.every.append(function)
                for name in (n for code in _codes_in(function.__code__) for n in code.co_names):
                    waiting += [function.__globals__.get(name), *self._methods(name)]

    def reads(self, name: str) -> bool:
        """Whether code asks for it more often than it sets it: ``n += 1`` alone counts for show."""
        codes = (code for each in self.every for code in _codes_in(each.__code__))
        return any(_more_loads(code, name) for code in codes)

    def _methods(self, name: str) -> Iterator[Any]:
        for kind in self._kinds:
            for base in kind.__mro__:
                if is_of_users_class(base) and name in vars(base):
                    yield function_of(vars(base)[name])


def _parts_of(owner: Any) -> Iterator[Any]:
    for each in vars(owner).values() if hasattr(owner, "__dict__") else ():
        yield from each[:64] if isinstance(each, list | tuple) else [each]


def _codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes_in(each)


def _more_loads(code: types.CodeType, name: str) -> bool:
    used = collections.Counter(
        each.opname in _LOADS
        for each in dis.get_instructions(code)
        if each.argval == name and each.opname in _LOADS | _STORES
    )
    return used[True] > used[False]
