"""What a program makes with the model before a loop, which a resume would make with a later one."""

from __future__ import annotations

import ast
import weakref
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

from colabkit.runs.leaving import frames_over
from colabkit.runs.loop_events import Event, Reader, Room, Verb, within
from colabkit.runs.loop_source import LoopSource, loop_at
from colabkit.runs.loop_uses import Uses
from colabkit.runs.loop_values import Held, Values, is_array, is_lone, is_row

# What a program calls on a model without making anything of its weights.
_NEUTRAL = frozenset({
    "children", "compile", "cpu", "cuda", "double", "eval", "float", "half", "modules",
    "named_children", "named_modules", "register_forward_hook", "requires_grad_",
    "summary", "to", "train", "zero_grad",
})  # fmt: skip


def is_used_at_heads(loop: weakref.ref[Any], held: Held) -> bool:
    """Whether epochs make something with the model before their first pass over data.

    Asked from within the generator of epochs, at the head of its ``for`` statement.
    """
    for frame in frames_over(loop()):
        if (source := loop_at(frame)) is not None:
            values = Values(frame, held)
            events = Reader(values, source.source).read(source.loop.body).events
            if _Flow(values).over(_up_to_pass(events)).made:
                return True
    return False


def made_before(
    loop: weakref.ref[Any], held: Held, *, at_heads: bool, is_epochs: bool = False
) -> dict[str, Any]:
    """Returns the variables that a loop goes by and that were made with the model before it.

    Args:
        loop: The generator, at the head of its ``for`` statement.
        held: What a checkpoint holds.
        at_heads: Whether those that are made in each epoch are wanted, too.
        is_epochs: Whether it is a loop over epochs, else over data.
    """
    found: dict[str, Any] = {}
    for frame in frames_over(loop()):
        if (source := loop_at(frame)) is not None:
            found |= dict(_made_before(frame, source, held, at_heads=at_heads, is_epochs=is_epochs))
    return found


def _made_before(
    frame: FrameType, source: LoopSource, held: Held, *, at_heads: bool, is_epochs: bool
) -> Iterator[tuple[str, Any]]:
    values = Values(frame, held)
    before = _before(source, values, at_heads=at_heads, is_epochs=is_epochs)
    if not before:
        return
    flow = _Flow(values).over(Reader(values, source.source).read(before).events)
    if not flow.made:
        return
    read = Reader(values, source.source).read([source.loop])
    uses = Uses(read, values)
    is_set = set()
    for event in read.events:
        if event.verb is Verb.SET:
            is_set.add(event.path)
        if event.verb is not Verb.READ or any(within(event.path, each) for each in is_set):
            continue
        for path in [p for p in flow.made if within(event.path, p) or within(p, event.path)]:
            names = flow.made[path] if uses.decide(path) else ()
            yield from ((n, values.of(n)) for n in names if not values.is_held(n))


def fed_by(loop: weakref.ref[Any], held: Held, paths: Iterable[str]) -> set[str]:
    """Returns those of some variables on which the data of a loop depends."""
    found = set()
    for frame in frames_over(loop()):
        if (source := loop_at(frame)) is not None:
            values = Values(frame, held)
            before = _before(source, values, at_heads=True, is_epochs=False)
            events = Reader(values, source.source).read(before).events
            data = Reader(values, source.source)
            data.visit(source.loop.iter)
            for path in paths:
                made = {path, *_Flow(values, of=path).over(events).made}
                found |= {path for e in data.events for each in made if _is_part(e.path, each)}
    return found


def _before(
    source: LoopSource, values: Values, *, at_heads: bool, is_epochs: bool
) -> Sequence[ast.stmt]:
    """Returns the statements before a loop that a resume runs again, behind the run's making."""
    if not (at_heads or is_epochs) and source.outermost is source.loop:
        # The loop over epochs is in another function, and has called this one.
        return []
    begins = source.loop.lineno
    found: list[ast.stmt] = []
    waiting = [each for each in source.scope if each.lineno < begins]
    while waiting:
        each = waiting.pop(0)
        if (each.end_lineno or each.lineno) < begins:
            makes_run = isinstance(each, ast.Assign) and any(
                values.is_run(path) for t in each.targets if (path := Room(source.source).path(t))
            )
            found = [] if makes_run else [*found, each]
            continue
        if not at_heads and isinstance(each, ast.For | ast.While):
            break
        blocks = [b for n in ("body", "orelse", "finalbody") if (b := getattr(each, n, None))]
        waiting = [e for block in blocks for e in block if e.lineno < begins] + waiting
    return found


def _up_to_pass(events: Iterable[Event]) -> Iterator[Event]:
    for each in events:
        if each.verb is Verb.LOOP:
            return
        yield each


class _Flow:
    """Follows what is made of a model's weights from statement to statement.

    Args:
        values: What the names stand for.
        of: A variable to follow in their place.

    Attributes:
        made: The variables made so, each with those to keep in its place.
    """

    def __init__(self, values: Values, *, of: str = "") -> None:
        self._values, self._of = values, of
        self._hot: dict[ast.AST, frozenset[str]] = {}
        self.made: dict[str, frozenset[str]] = {}

    def over(self, events: Iterable[Event]) -> _Flow:
        is_in_pass = False
        for each in events:
            if each.verb is Verb.LOOP:
                is_in_pass = not is_in_pass
            elif not is_in_pass:
                self._take(each)
        return self

    def _take(self, event: Event) -> None:
        statement = _statement_of(event.node, event.room)
        if event.verb is Verb.READ:
            of = [names for path, names in self.made.items() if _is_part(event.path, path)]
            if of or self._is_source(event):
                self._heat(statement, event.room, frozenset().union(*of))
        elif statement in self._hot:
            is_data = self._values.has(event.path) and _can_be_kept(self._values.of(event.path))
            self.made[event.path] = frozenset({event.path}) if is_data else self._hot[statement]
        elif event.verb is Verb.SET:
            for path in [p for p in self.made if within(p, event.path)]:
                del self.made[path]

    def _heat(self, statement: ast.AST, room: Room, of: frozenset[str]) -> None:
        self._hot[statement] = self._hot.get(statement, frozenset()) | of
        if isinstance(statement, ast.Return) and room.call is not None and room.outer is not None:
            self._heat(_statement_of(room.call, room.outer), room.outer, of)

    def _is_source(self, event: Event) -> bool:
        path, values = event.path, self._values
        if self._of:
            return within(path, self._of)
        parts = path.split(".")
        owners = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        if not any(values.is_weights(each) for each in owners):
            return False
        if len(parts) > 1 and parts[-1] in _NEUTRAL:
            return False
        within_statement = event.room.source.around(event.node)
        return any(isinstance(each, ast.Call) for each in _up_to_statement(within_statement))


def _up_to_statement(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for each in nodes:
        if isinstance(each, ast.stmt):
            return
        yield each


def _statement_of(node: ast.AST, room: Room) -> ast.AST:
    lies_in = (node, *room.source.around(node))
    return next((each for each in lies_in if isinstance(each, ast.stmt)), node)


def _is_part(path: str, made: str) -> bool:
    return within(path, made) or within(made, path)


def _can_be_kept(value: object) -> bool:
    """Whether it is data: an array, a list and the like, a threshold, or a model of its own."""
    if is_array(value) or (is_row(value) or isinstance(value, tuple)):
        return True
    if is_lone(value):
        return value is None or isinstance(value, float)
    return hasattr(type(value), "load_state_dict") and hasattr(type(value), "parameters")
