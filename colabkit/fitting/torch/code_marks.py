"""A short mark of a function, by which another session tells whether it is another one."""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from typing import Any

from torch import nn

from colabkit.frameworks.users_own import is_users_module


def code_mark(function: Any) -> str:
    """Returns a mark that a function of the user's has as long as its code is the same.

    Of others it is their name: their code is the library's. A module is told by its layers.

    Example:
        >>> code_mark(None), code_mark(nn.L1Loss())
        ('', '')
    """
    if function is None or isinstance(function, nn.Module):
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


def _digest(code: types.CodeType) -> str:
    found = hashlib.blake2b(code.co_code, digest_size=4)
    for each in code.co_consts:
        # A set's order is another one in each process.
        held = sorted(map(repr, each)) if isinstance(each, frozenset) else each
        part = _digest(held) if isinstance(held, types.CodeType) else repr(held)
        found.update(part.encode())
    found.update(" ".join((*code.co_names, *code.co_varnames)).encode())
    return found.hexdigest()
