"""Which functions a call may run: a variable stands for now one, now another."""

from __future__ import annotations

import ast
import collections
import functools
from collections.abc import Container, Iterator, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any

from colabkit.frameworks.users_own import is_of_users_class
from colabkit.runs.loop_paths import ANY, key_of, path_of
from colabkit.runs.loop_rooms import NOBODY, Done, Room, called_by
from colabkit.runs.loop_source import Source
from colabkit.runs.loop_values import Values

_ITEMS_MAX = 64
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.Module)


def may_be_called(
    function: ast.expr, path: str | None, room: Room, defined: Container[str]
) -> list[str]:
    """Returns the paths of all that a call may run, as far as the code around it says so.

    Args:
        function: What is called.
        path: Its path.
        room: Where the call stands.
        defined: The functions that the loop itself defines.
    """
    own = [] if path is None else [*_one_of_each_kind(path, room.values)]
    chosen = [(each, room) for each in _chosen_in(function)]
    name = "" if path is None else path.rpartition(".")[2]
    at: Room | None = room
    node: ast.AST | None = function
    while at is not None and node is not None:
        here = _scope_of(node, at.source)
        setters = _set_to(at.source).get(name, ())
        chosen += [(each, at) for scope, each in setters if scope in {None, here}]
        node, at = at.call, at.outer
    others = (other for each, where in chosen for other in _paths_of(each, where))
    known = [each for each in map(room.values.of, own) if each is not None]
    more = (each for each in dict.fromkeys(others) if each not in own)
    return [*own, *(e for e in more if e in defined or _is_another(e, room, known))]


def _is_another(path: str, room: Room, known: Sequence[Any]) -> bool:
    """Whether a variable may be called, and is none of some that are."""
    value = room.values.of(path)
    if value is None:  # a method that a class has
        return called_by(Done("", None, [], path), room) is not NOBODY
    return callable(value) and not any(value is each for each in known)


def _paths_of(function: ast.expr, room: Room) -> list[str]:
    path = room.path(function)
    if path is not None or not isinstance(function, ast.Call):
        return [] if path is None else [*_one_of_each_kind(path, room.values)]
    # It is asked for by a name that nobody can tell: ``getattr(self, name)``.
    owner = room.path(function.args[0])
    kind = type(room.values.of(owner or ""))
    names = [name for name, each in vars(kind).items() if isinstance(each, FunctionType)]
    is_own = owner is not None and is_of_users_class(kind)
    return [f"{owner}.{name}" for name in names if is_own and not name.startswith("__")]


def _one_of_each_kind(path: str, values: Values) -> Iterator[str]:
    """Yields, for any of a row, one of each kind: of each function, and each class of objects."""
    head, is_any, rest = path.partition(ANY)
    row = values.of(head) if is_any else None
    held = [*row.items()] if isinstance(row, dict) else []
    held = [*enumerate(row)] if isinstance(row, list | tuple) else held
    kinds: dict[Any, str] = {}
    for key, value in held[:_ITEMS_MAX]:
        place = key_of(ast.Constant(key))
        kinds.setdefault(_kind_of(value), f"{head}{place}{rest}")
    if len(kinds) <= 1:
        yield path
        return
    for each in kinds.values():
        yield from [each] if is_any and each == path else _one_of_each_kind(each, values)


def _kind_of(value: Any) -> Any:
    if isinstance(value, MethodType):
        return value.__func__
    return value if isinstance(value, FunctionType) else type(value)


def _chosen_in(value: ast.expr) -> Iterator[ast.expr]:
    """Yields the variables of which an expression is one."""
    parts: Sequence[ast.expr] = ()
    match value:
        case ast.Name() | ast.Attribute():
            yield value
        case ast.IfExp(body=body, orelse=orelse):
            parts = [body, orelse]
        case ast.BoolOp(values=values):
            parts = values
        case ast.NamedExpr(value=inner):
            parts = [inner]
        case ast.Subscript(value=ast.Dict(values=values)):
            parts = values
        case ast.Subscript(value=ast.List(elts=elements) | ast.Tuple(elts=elements)):
            parts = elements
        case ast.Subscript() | ast.Call(func=ast.Name(id="getattr"), args=[_, _, *_]):
            yield value
    for each in parts:
        yield from _chosen_in(each)


def _scope_of(node: ast.AST, source: Source) -> ast.AST:
    return next(each for each in source.around(node) if isinstance(each, _SCOPES))


@functools.lru_cache(maxsize=64)
def _set_to(source: Source) -> Mapping[str, Sequence[tuple[ast.AST | None, ast.expr]]]:
    """Returns the variables that others are set to in a module, by the name of those.

    Each comes with the scope whose name it is; None of attributes and of outer names.
    """
    found: dict[str, list[tuple[ast.AST | None, ast.expr]]] = collections.defaultdict(list)
    for each in ast.walk(source.tree):
        targets = each.targets if isinstance(each, ast.Assign) else [getattr(each, "target", None)]
        if isinstance(each, ast.Assign | ast.AnnAssign | ast.NamedExpr) and each.value is not None:
            for target in targets:
                if isinstance(target, ast.Name | ast.Attribute):
                    name = (path_of(target) or "").rpartition(".")[2]
                    scope = None if isinstance(target, ast.Attribute) else _scope_of(each, source)
                    scope = None if scope is not None and name in _outer_names(scope) else scope
                    found[name] += [(scope, value) for value in _chosen_in(each.value)]
    return found


@functools.lru_cache(maxsize=256)
def _outer_names(scope: ast.AST) -> frozenset[str]:
    declared = (e for e in ast.walk(scope) if isinstance(e, ast.Global | ast.Nonlocal))
    return frozenset(name for each in declared for name in each.names)
