"""Paths of what a loop's variables lead to: ``best``, ``self.best``, ``heads[0].count``."""

from __future__ import annotations

import ast
import collections
import functools
import re
import types
import weakref
from collections.abc import Iterator
from typing import Any

from colabkit.frameworks.bystanders import remembered_by
from colabkit.frameworks.users_own import attributes_of

MISSING = object()
# Any place of a row: ``heads[...].count``.
ANY = "[...]"
_ROOT = re.compile(r"[^.\[(]+")
_STEPS = re.compile(r"\.[^.\[(]+|\[[^\]]*\]|\(\)")
_NAMES = re.compile(r"[\w -]+")
_PATHS_MAX = 4096
_DICTS = (dict, weakref.WeakValueDictionary)
_SETS = (set, weakref.WeakSet)
_KINDS = (*_DICTS, *_SETS, list, tuple, collections.deque)


def path_of(node: ast.AST) -> str | None:
    """Returns what names a variable, or an attribute of one: ``best``, ``self.best``."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = path_of(node.value)
        return None if inner is None else f"{inner}.{node.attr}"
    return None


def container_of(node: ast.expr) -> ast.expr:
    """Returns what is written into by an index, or the node itself."""
    while isinstance(node, ast.Subscript | ast.Starred):
        node = node.value
    return node


@functools.lru_cache(maxsize=_PATHS_MAX)  # a loop asks for the same again and again
def root_of(path: str) -> str:
    """Returns the variable that a path begins with."""
    found = _ROOT.match(path)
    return "" if found is None else found.group()


@functools.lru_cache(maxsize=_PATHS_MAX)
def prefixes_of(path: str) -> tuple[str, ...]:
    """Returns the paths to all that a path leads over, itself the last.

    Example:
        >>> prefixes_of("self.heads[0].count")
        ('self', 'self.heads', 'self.heads[0]', 'self.heads[0].count')
    """
    root = root_of(path)
    return (root, *(path[: each.end()] for each in _STEPS.finditer(path, len(root))))


def within(path: str, whole: str) -> bool:
    """Whether a path names a variable or something of it."""
    return path == whole or (path.startswith(whole) and path[len(whole)] in ".[(")


def is_part(path: str, other: str) -> bool:
    """Whether one of two paths names what the other does, or something of it."""
    return within(path, other) or within(other, path)


def key_of(node: ast.expr) -> str:
    """Returns how a path goes on by an index."""
    if isinstance(node, ast.Constant):
        is_name = isinstance(node.value, str) and _NAMES.fullmatch(node.value)
        if type(node.value) is int or is_name:
            return f"[{node.value!r}]"
    return ANY


def each_of(path: str) -> str:
    """Returns the path of any of what a row holds."""
    return path + ANY


def followed(value: Any, path: str) -> Any:
    """Returns what a path leads to from its root's value, ``MISSING`` where that cannot be told."""
    for step in _STEPS.finditer(path, len(root_of(path))):
        value = _step(value, step.group())
    return value


def _step(value: Any, step: str) -> Any:
    if isinstance(value, weakref.ProxyTypes):
        value = _behind(value)
    if step == "()":
        return _answer_of(value)
    if step.startswith("["):
        return _in_row(value, step[1:-1])
    name = step[1:]
    if name == "__self__" and isinstance(value, types.MethodType | types.BuiltinMethodType | _SLOT):
        return value.__self__
    if isinstance(value, functools.partial) and name in {"args", "keywords", "func"}:
        return getattr(value, name)
    if name == "__class__":
        return type(value)
    found = attributes_of(value).get(name, MISSING)
    return _of_class(value, name) if found is MISSING else found


_SLOT = types.MethodWrapperType


def _of_class(value: Any, name: str) -> Any:
    """Returns what a class keeps for an object, or has for it until it is first set."""
    found: Any = vars(owner_of(value, name)).get(name, MISSING)
    if found is MISSING and isinstance(value, dict):  # one whose keys are attributes, maybe
        has_own = in_class(type(value), "__getattr__") is not MISSING
        return dict.get(value, name, MISSING) if has_own else MISSING
    return found if isinstance(found, bool | int | float | list | dict | set) else MISSING


def in_class(kind: type, name: str) -> Any:
    """Returns what a class or one of its bases has by a name, ``MISSING`` where none has it."""
    return next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), MISSING)


def owner_of(value: Any, name: str) -> Any:
    """Returns what has an attribute: the object, its class, or a base of that."""
    if name not in attributes_of(value):
        kind = value if isinstance(value, type) else type(value)
        return next((each for each in kind.__mro__ if name in vars(each)), type(value))
    return value


def _behind(proxy: Any) -> Any:
    """Returns the object that a weak proxy stands for."""
    try:
        return proxy.__init__.__self__
    except (ReferenceError, AttributeError):
        return MISSING


def _answer_of(value: Any) -> Any:
    """Returns what a call without arguments gives, where that runs nothing of the user's."""
    if isinstance(value, weakref.ref):
        found = value()
        return MISSING if found is None else found
    return next(iter(remembered_by(value)), MISSING)


def _in_row(value: Any, key: str) -> Any:
    """Returns what a row has by a key, or any of it: no method of the user's is run."""
    kind: Any = next((each for each in _KINDS if isinstance(value, each)), None)
    if kind is None:
        return MISSING
    is_dict = kind in _DICTS
    if key == "..." or kind in _SETS:
        return next(iter(kind.values(value) if is_dict else kind.__iter__(value)), MISSING)
    place = ast.literal_eval(key)
    if is_dict:
        return kind.get(value, place, MISSING)
    is_there = type(place) is int and place < kind.__len__(value)
    return kind.__getitem__(value, place) if is_there else MISSING


def bound_once(name: str, node: ast.AST, around: Iterator[ast.AST]) -> bool:
    """Whether a name is set at one place only of the function or module that a node lies in."""
    scopes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.Module)
    scope = next((each for each in around if isinstance(each, scopes)), node)
    return _stores_in(scope)[name] == 1


@functools.lru_cache(maxsize=64)
def _stores_in(scope: ast.AST) -> collections.Counter[str]:
    nodes = (each for each in ast.walk(scope) if isinstance(each, ast.Name | ast.arg))
    return collections.Counter(
        each.arg if isinstance(each, ast.arg) else each.id
        for each in nodes
        if isinstance(each, ast.arg) or not isinstance(each.ctx, ast.Load)
    )
