"""Front doors of packages whose modules are imported when a name of theirs is first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def opened_on_use(
    package: str, modules: Mapping[str, str], *, elsewhere: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns a package's ``__getattr__`` and ``__dir__``.

    Args:
        package: Its ``__name__``.
        modules: The names that each of its modules gives to the outside, between spaces; a
            module that is given whole stands beside "".
        elsewhere: What names of other libraries are here: a module and a name in it, "a.b.NAMES",
            looked up only for a name that is not there.

    Example:
        >>> from colabkit import notebook
        >>> notebook.bytes_words(1_000)
        '1.0 kB'
    """
    owners = {name: module for module, names in modules.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in owners:
            message = f"module {package!r} has no attribute {name!r}"
            module, _, table = elsewhere.rpartition(".")
            if table and not name.startswith("_"):
                answers = getattr(importlib.import_module(module), table)
                message = ". ".join(filter(None, (message, answers.hint(name, None))))
            raise AttributeError(message)
        if not owners[name]:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(f"{package}.{owners[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *owners})

    return load, names
