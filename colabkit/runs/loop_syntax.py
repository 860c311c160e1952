"""What a node of source says by itself, whatever its names stand for."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

_NAMESPACES = frozenset({"globals", "locals", "vars"})
_ASKING = frozenset({"getattr", "hasattr"})


def set_at(node: ast.AST) -> list[str]:
    is_set = isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    return [node.id] if is_set else []  # type: ignore[attr-defined]


def declared(node: ast.AST) -> list[str]:
    return node.names if isinstance(node, ast.Global | ast.Nonlocal) else []


def attribute_asked(node: ast.AST) -> ast.Attribute | None:
    """Returns what ``getattr(pace, "count")`` is: ``pace.count``."""
    if not isinstance(node, ast.Call) or verb_of(node) not in _ASKING or len(node.args) < 2:
        return None
    owner, name = node.args[:2]
    is_name = isinstance(name, ast.Constant) and isinstance(name.value, str)
    return ast.Attribute(owner, name.value, ast.Load()) if is_name else None  # type: ignore[attr-defined]


def is_namespace(node: ast.AST) -> bool:
    """Whether it gives variables by name: ``vars(self)``, ``self.__dict__``, ``globals()``."""
    if isinstance(node, ast.Attribute):
        return node.attr == "__dict__"
    return isinstance(node, ast.Call) and verb_of(node) in _NAMESPACES


def owner_in(space: ast.expr) -> ast.expr | None:
    """Returns whose variables a namespace gives, None where they are those around it."""
    if isinstance(space, ast.Call):
        return space.args[0] if space.args else None
    return space.value if isinstance(space, ast.Attribute) else None


def is_super(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and verb_of(node) == "super" and not node.args


def verb_of(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def taken_apart(target: ast.expr, over: ast.expr) -> Iterator[tuple[ast.Name, ast.expr]]:
    """Yields the names that a loop sets, each with the row of which it is a part."""
    if isinstance(over, ast.Call):
        verb = verb_of(over)
        targets = target.elts if isinstance(target, ast.Tuple) else [target]
        rows: Iterable[tuple[ast.expr, ast.expr]] = ()
        if verb == "zip":
            rows = zip(targets, over.args, strict=False)
        elif verb == "enumerate":
            rows = zip(targets[1:], over.args, strict=False)
        elif verb in {"list", "reversed", "tuple"}:
            rows = zip([target], over.args, strict=False)
        elif verb in {"items", "values"} and isinstance(over.func, ast.Attribute):
            rows = [(targets[-1], over.func.value)]
        for each, row in rows:
            yield from taken_apart(each, row)
    elif isinstance(target, ast.Name):
        yield target, over


def takes_all(index: ast.expr) -> bool:
    """Whether an index takes all that is there: ``rows[:]``, ``rows[...]``."""
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    return all(
        each.lower is each.upper is each.step is None
        if isinstance(each, ast.Slice)
        else isinstance(each, ast.Constant) and each.value is ...
        for each in parts
    )
