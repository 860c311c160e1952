"""Whether what a loop does is done in each of its turns."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Sequence

from colabkit.runs.loop_events import Event
from colabkit.runs.loop_paths import is_part
from colabkit.runs.loop_rooms import Room
from colabkit.runs.loop_writes import Verb

_STOPPING = frozenset({"KeyboardInterrupt", "SystemExit"})
_LEAVING = (ast.Break, ast.Continue, ast.Raise, ast.Return)


def is_conditional(event: Event, events: Sequence[Event]) -> bool:
    """Whether a variable is set in some turns of the loop, and in others not, or read before.

    Args:
        event: That it is set.
        events: All of the loop, in order.
    """
    name = event.path.rpartition(":")[2].rpartition(".")[2]
    child = event.node
    for parent in event.room.source.around(event.node):
        is_choice = isinstance(parent, ast.IfExp) and child is not parent.test
        if is_choice or (isinstance(parent, ast.BoolOp) and child is not parent.values[0]):
            return True
        for others in _others(parent, child, event):
            if not _sets_or_leaves(others, name) or _reads_first(others, event, events):
                return True
        if event.room.is_definition(parent):
            break
        child = parent
    call, outer = event.room.call, event.room.outer
    if call is None or outer is None:
        return False
    return is_conditional(dataclasses.replace(event, node=call, room=outer), events)


def _others(parent: ast.AST, child: ast.AST, event: Event) -> Iterator[Sequence[ast.stmt]]:
    """Yields what is run in place of a part of a statement."""
    if isinstance(parent, ast.If) and child is not parent.test:
        yield parent.orelse if child in parent.body else parent.body
    elif isinstance(parent, ast.Try) and child in [*parent.body, *parent.orelse]:
        yield from _handled(parent)
    elif isinstance(parent, ast.ExceptHandler):
        statement = event.room.source.parents[parent]
        yield [*statement.body, *statement.orelse]  # type: ignore[attr-defined]
    elif isinstance(parent, ast.match_case):
        statement = event.room.source.parents[parent]
        cases: list[ast.match_case] = statement.cases  # type: ignore[attr-defined]
        yield from (each.body for each in cases if each is not parent)
        yield from () if _takes_all(cases[-1]) else [()]


def _handled(statement: ast.Try) -> Iterator[Sequence[ast.stmt]]:
    """Yields what is run where something was raised, but where a person has stopped it."""
    for each in statement.handlers:
        if each.type is None or not _STOPPING.intersection(_names_in(each.type)):
            yield each.body


def _takes_all(case: ast.match_case) -> bool:
    is_name = isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None
    return is_name and case.guard is None


def _sets_or_leaves(statements: Sequence[ast.stmt], name: str) -> bool:
    """Whether a name is set, or the turn is left, whichever way statements are run through."""
    return any(isinstance(each, _LEAVING) or _sets(each, name) for each in statements)


def _sets(statement: ast.stmt, name: str) -> bool:
    ways: list[Sequence[ast.stmt]]
    match statement:
        case ast.If(body=body, orelse=orelse):
            ways = [body, orelse]
        case ast.Match(cases=cases):
            ways = [*(each.body for each in cases), *([] if _takes_all(cases[-1]) else [[]])]
        case ast.Try(body=body, orelse=orelse, finalbody=final):
            if _sets_or_leaves(final, name):
                return True
            ways = [[*body, *orelse], *_handled(statement)]
        case ast.With(body=body) | ast.AsyncWith(body=body):
            ways = [body]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return statement.name == name
        case _:
            return name in _stored_in(statement)
    return all(_sets_or_leaves(each, name) for each in ways)


def _reads_first(statements: Sequence[ast.stmt], event: Event, events: Sequence[Event]) -> bool:
    """Whether statements read what is set elsewhere before they set it: ``wait += 1``."""
    within = {node for each in statements for node in ast.walk(each)}
    its = (each for each in events if is_part(each.path, event.path))
    first = next((each for each in its if _node_in(event.room, each) in within), None)
    return first is not None and first.verb is not Verb.SET


def _node_in(room: Room, event: Event) -> ast.AST | None:
    """Returns where an event happens as a room sees it: at the call that leads to it."""
    node, at = event.node, event.room
    while at is not room:
        if at.call is None or at.outer is None:
            return None
        node, at = at.call, at.outer
    return node


def _names_in(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _stored_in(statement: ast.stmt) -> set[str]:
    nodes = [e for e in ast.walk(statement) if isinstance(e, ast.Name | ast.Attribute)]
    stored = [e for e in nodes if not isinstance(e.ctx, ast.Load)]
    return {e.id if isinstance(e, ast.Name) else e.attr for e in stored}
