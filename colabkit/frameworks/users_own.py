"""What is of the user's own: classes and functions of a notebook or of files beside it."""

from __future__ import annotations

import contextlib
import functools
import site
import sys
import sysconfig
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def attributes_of(value: object) -> Mapping[str, Any]:
    """Returns what an object carries, without its own ``__getattr__``, which may raise anything."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        found = None
    own: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    in_slots = _in_slots(value)
    return {**own, **in_slots} if in_slots else own


def carries_attributes(value: Any) -> bool:
    """Whether objects of its kind carry attributes, in a dict of their own or in slots."""
    kind: Any = type(value)
    return bool(kind.__dictoffset__ or _slots_of(kind))


def set_attribute(owner: Any, name: str, value: Any) -> None:
    """Gives an object an attribute, also where it was changed in spite of being frozen."""
    try:
        setattr(owner, name, value)
    except AttributeError:
        object.__setattr__(owner, name, value)


def _in_slots(value: Any) -> dict[str, Any]:
    kind: Any = type(value)
    found = {}
    for name, slot in _slots_of(kind):
        with contextlib.suppress(AttributeError):  # one that nothing was put into
            found[name] = slot.__get__(value)
    return found


@functools.lru_cache(maxsize=1024)
def _slots_of(kind: type) -> tuple[tuple[str, Any], ...]:
    """Returns the slots that the classes of an object name, each with what reads it."""
    # Classes of C have none of that name, though what they carry may be read likewise.
    classes = [vars(each) for each in reversed(kind.__mro__) if "__slots__" in vars(each)]
    members = (pair for own in classes for pair in own.items())
    return tuple((n, each) for n, each in members if type(each) is types.MemberDescriptorType)


def is_of_users_class(kind: type) -> bool:
    """Whether a class comes from a notebook or the user's own files."""
    return is_users_module(module_of(kind))


def module_of(kind: type) -> str:
    """Returns the module that a class says it is of, "" where it says none."""
    # A class that Cython compiled may hold a descriptor there, for the modules of its objects.
    module = kind.__module__
    return module if isinstance(module, str) else ""


def package_of(kind: type) -> str:
    """Returns the package that a class says it is of, "" where it says none."""
    return module_of(kind).partition(".")[0]


@functools.lru_cache(maxsize=1024)
def is_users_module(name: str) -> bool:
    """Whether a module is a notebook or one of the user's own files."""
    if name == "__main__":
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or is_of_package(file):
        return False
    return not _was_installed(name.partition(".")[0])


@functools.lru_cache(maxsize=1024)
def is_of_package(file: str) -> bool:
    """Whether a file lies where Python's own modules do, or where packages are installed."""
    path = Path(file)
    in_folder = not _PACKAGE_FOLDERS.isdisjoint(path.parts)
    return in_folder or any(path.is_relative_to(root) for root in _LIBRARIES)


def _was_installed(package: str) -> bool:
    """Whether pip has put a package where it lies: into a folder on Drive, say, by ``--target``."""
    module = sys.modules.get(package)
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    first = Path(file).parent.name + "/" if hasattr(module, "__path__") else Path(file).name + ","
    folder = Path(file).parents[1] if hasattr(module, "__path__") else Path(file).parent
    for record in folder.glob("*.dist-info/RECORD"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if any(line.startswith(first) for line in record.read_text("utf-8").splitlines()):
                return True
    return False


# Also those of another environment, which a path file or PYTHONPATH has added to this one.
_PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})
_LIBRARIES = {
    Path(root)
    for root in (
        *(sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
        str(Path(__file__).parents[1]),
    )
}
