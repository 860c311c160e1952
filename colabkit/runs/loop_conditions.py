"""Whether what a loop does is done in each of its turns."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Sequence

from colabkit.runs.loop_events import Event

_LEAVING = (ast.Break, ast.Continue, ast.Raise, ast.Return)


def is_conditional(event: Event) -> bool:
    """Whether a statement is run in some turns of the loop, and in others not."""
    name = event.path.rpartition(":")[2].rpartition(".")[2]
    child = event.node
    for parent in event.room.source.around(event.node):
        is_choice = isinstance(parent, ast.IfExp) and child is not parent.test
        if is_choice or (isinstance(parent, ast.BoolOp) and child is not parent.values[0]):
            return True
        if not all(_sets_or_leaves(each, name) for each in _others(parent, child, event)):
            return True
        if event.room.is_definition(parent):
            break
        child = parent
    call, outer = event.room.call, event.room.outer
    if call is None or outer is None:
        return False
    return is_conditional(dataclasses.replace(event, node=call, room=outer))


def _others(parent: ast.AST, child: ast.AST, event: Event) -> Iterator[Sequence[ast.stmt]]:
    """Yields what is run in place of a part of a statement."""
    if isinstance(parent, ast.If) and child is not parent.test:
        yield parent.orelse if child in parent.body else parent.body
    elif isinstance(parent, ast.ExceptHandler):
        statement = event.room.source.parents[parent]
        yield [*statement.body, *statement.orelse]  # type: ignore[attr-defined]
    elif isinstance(parent, ast.match_case):
        statement = event.room.source.parents[parent]
        cases: list[ast.match_case] = statement.cases  # type: ignore[attr-defined]
        yield from (each.body for each in cases if each is not parent)
        last = cases[-1]
        takes_all = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
        yield from () if takes_all and last.guard is None else [()]


def _sets_or_leaves(statements: Sequence[ast.stmt], name: str) -> bool:
    if statements and isinstance(statements[-1], _LEAVING):
        return True
    return any(name in _stored_in(each) for each in statements)


def _stored_in(statement: ast.stmt) -> set[str]:
    nodes = [e for e in ast.walk(statement) if isinstance(e, ast.Name | ast.Attribute)]
    stored = [e for e in nodes if not isinstance(e.ctx, ast.Load)]
    return {e.id if isinstance(e, ast.Name) else e.attr for e in stored}
