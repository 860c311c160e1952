"""Sums that carry numbers from step to step, and whose gradient is that of the newest alone."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from colabkit.runs.loop_paths import is_part
from colabkit.runs.loop_rooms import Room
from colabkit.runs.loop_writes import Event, Verb


def is_backward_of(call: ast.Call, room: Room, path: str) -> bool:
    """Whether a call is ``total.backward()`` of a variable, and keeps no graph."""
    function = call.func
    is_plain = isinstance(function, ast.Attribute) and not (call.args or call.keywords)
    if not is_plain or not isinstance(room.source.parents.get(call), ast.Expr):
        return False
    return function.attr == "backward" and room.path(function.value) == path  # type: ignore[attr-defined]


def other_reads(
    call: ast.Call, room: Room, path: str, events: Iterable[Event]
) -> list[Event] | None:
    """Returns what reads a sum beside what adds to it and its ``backward``.

    ``total = total + loss`` before that, and ``total = total.detach()`` behind it: what total was
    is no part of the gradient. None of what is no such sum.

    Args:
        call: ``total.backward()``.
        room: Where it stands.
        path: The sum.
        events: What the loop reads and writes.
    """
    own = [each for each in events if is_part(each.path, path)]
    writes = [_statement_of(each) for each in own if each.verb in {Verb.SET, Verb.CHANGE}]
    if not all(_adds(each, room, path) or _severs(each, room, path) for each in writes):
        return None
    if not any(_severs(each, room, path) for each in _behind(room.source.parents[call], room)):
        return None
    reads = (each for each in own if each.verb is Verb.READ)
    return [e for e in reads if _statement_of(e) not in writes and not _is_its(e, room, path)]


def _is_its(event: Event, room: Room, path: str) -> bool:
    around = room.source.around(event.node)
    calls = (each for each in around if isinstance(each, ast.Call))
    return any(is_backward_of(each, room, path) for each in calls)


def _statement_of(event: Event) -> ast.AST:
    around = (event.node, *event.room.source.around(event.node))
    return next(each for each in around if isinstance(each, ast.stmt | ast.Module))


def _behind(statement: ast.AST, room: Room) -> list[ast.stmt]:
    """Returns the statements that are run behind one whenever it is."""
    parent = room.source.parents[statement]
    blocks = [getattr(parent, name, []) for name in ("body", "orelse", "finalbody")]
    block = next((each for each in blocks if statement in each), [])
    return block[block.index(statement) + 1 :] if block else []


def _adds(statement: ast.AST, room: Room, path: str) -> bool:
    if isinstance(statement, ast.AugAssign):
        is_sum = isinstance(statement.op, ast.Add | ast.Sub)
        return is_sum and not _is_in(statement.value, room, path)
    return isinstance(statement, ast.Assign) and _is_sum(statement.value, room, path)


def _is_sum(value: ast.expr, room: Room, path: str) -> bool:
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add | ast.Sub):
        return all(_is_sum(each, room, path) for each in (value.left, value.right))
    return room.path(value) == path or not _is_in(value, room, path)


def _severs(statement: ast.AST, room: Room, path: str) -> bool:
    """Whether a variable has nothing of the steps before it in its graph behind a statement."""
    if not isinstance(statement, ast.Assign):
        return False
    if path not in [room.path(each) for each in statement.targets]:
        return False
    value = statement.value
    is_call = isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)
    if is_call and value.func.attr == "detach":  # type: ignore[attr-defined]
        return room.path(value.func.value) == path  # type: ignore[attr-defined]
    return not _is_in(value, room, path)


def _is_in(node: ast.AST, room: Room, path: str) -> bool:
    named = (room.path(e) for e in ast.walk(node) if isinstance(e, ast.Name | ast.Attribute))
    return any(each is not None and is_part(each, path) for each in named)
