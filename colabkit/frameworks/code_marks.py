"""A short mark of a function, by which another session tells whether it is another one."""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterable
from typing import Any

from colabkit.frameworks.users_own import is_of_users_class, is_users_module


def code_mark(function: Any) -> str:
    """Returns a mark that a function of the user's has as long as its code is the same.

    Of others it is their name: their code is the library's.

    Example:
        >>> code_mark(None), code_mark(sorted)
        ('', 'sorted')
    """
    if function is None:
        return ""
    if isinstance(function, functools.partial):
        return f"{code_mark(function.func)} {sorted(function.keywords)}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    if code is None or not is_users_module(getattr(function, "__module__", None) or ""):
        return str(name)
    # Another Python compiles it otherwise.
    version = ".".join(map(str, sys.version_info[:2]))
    return f"{name} ({version} {_digest(code)})"


def methods_of(kind: type) -> dict[str, str]:
    """Returns the marks of the methods that a class of the user's own has, by name; no others."""
    own = [each for each in kind.__mro__ if is_of_users_class(each)]
    found = {name: value for each in reversed(own) for name, value in vars(each).items()}
    return {
        name: code_mark(value)
        for name, value in sorted(found.items())
        if isinstance(value, types.FunctionType) and (name == "__call__" or name[:2] != "__")
    }


def code_of(objects: Iterable[Any]) -> list[str]:
    """Returns the marks of all methods of the user's own that objects have, class by class."""
    kinds = {type(each) for each in objects}
    return sorted(f"{k.__qualname__} {mark}" for k in kinds for mark in methods_of(k).values())


def _digest(code: types.CodeType) -> str:
    found = hashlib.blake2b(code.co_code, digest_size=4)
    for each in code.co_consts:
        # A set's order is another one in each process.
        held = sorted(map(repr, each)) if isinstance(each, frozenset) else each
        part = _digest(held) if isinstance(held, types.CodeType) else repr(held)
        found.update(part.encode())
    found.update(" ".join((*code.co_names, *code.co_varnames)).encode())
    return found.hexdigest()
