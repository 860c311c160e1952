"""What a program makes with the model before a loop, which a resume would make with a later one."""

from __future__ import annotations

import ast
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

from colabkit.runs.leaving import frames_over
from colabkit.runs.loop_events import Reader
from colabkit.runs.loop_loaders import read_by_loaders
from colabkit.runs.loop_paths import is_part, prefixes_of, within
from colabkit.runs.loop_rooms import Room
from colabkit.runs.loop_source import LoopSource, Source, call_at, loop_at
from colabkit.runs.loop_uses import Uses
from colabkit.runs.loop_values import NEUTRAL, Held, Values, is_array, is_lone, is_row
from colabkit.runs.loop_writes import Event, Verb


class Used(NamedTuple):
    """Whether a loop makes something with the model that a resume makes once more.

    Attributes:
        at_heads: Before the first pass over data, be it that of an epoch.
        between: Between two passes.
    """

    at_heads: bool = False
    between: bool = False

    def __or__(self, other: tuple[bool, ...]) -> Used:
        return Used(*(one or another for one, another in zip(self, other, strict=True)))


def used_by(loop: weakref.ref[Any], held: Held, *, is_epochs: bool) -> Used:
    """Returns where a program makes something with the model around its passes.

    Args:
        loop: The generator, at the head of its ``for`` statement.
        held: What a checkpoint holds.
        is_epochs: Whether it is a loop over epochs, else over data without these: then all is
            looked at that follows, in its function's callers as well.
    """
    found = Used()
    for frame in frames_over(loop()):
        if (source := loop_at(frame)) is not None:
            statements = source.loop.body if is_epochs else source.following()
            found |= _used_in(statements, source.source, Values(frame, held))
        around = None if is_epochs else frame.f_back
        while around is not None and (called := call_at(around)) is not None:
            found |= _used_in(called.following(), called.source, Values(around, held))
            around = around.f_back
    return found


def _used_in(statements: Sequence[ast.stmt], source: Source, values: Values) -> Used:
    events = Reader(values, source).read(statements).events
    at_head, between = _around_passes(events)
    return Used(bool(_Flow(values).over(at_head).made), bool(_Flow(values).over(between).made))


def _around_passes(events: Sequence[Event]) -> tuple[Sequence[Event], Sequence[Event]]:
    """Returns what stands before the first pass, and between that and the last."""
    begins, ends, depth = [], [], 0
    for number, each in enumerate(events):
        if each.verb is Verb.BEGIN:
            begins += [number] if depth == 0 else []
            depth += 1
        elif each.verb is Verb.END:
            depth -= 1
            ends += [number] if depth == 0 else []
    if not begins:
        return events, ()
    return events[: begins[0]], events[ends[0] + 1 : begins[-1]] if ends else ()


def made_before(
    loop: weakref.ref[Any], held: Held, *, where: Used, is_epochs: bool = False
) -> dict[str, Any]:
    """Returns the variables that a loop goes by and that were made with the model before it.

    Args:
        loop: The generator, at the head of its ``for`` statement.
        held: What a checkpoint holds.
        where: Whether those that are made at heads and between passes are wanted, too.
        is_epochs: Whether it is a loop over epochs, else over data.
    """
    found: dict[str, Any] = {}
    for frame in frames_over(loop()):
        if (source := loop_at(frame)) is not None:
            found |= dict(_made_before(frame, source, held, where, is_epochs=is_epochs))
    return found


def _made_before(
    frame: FrameType, source: LoopSource, held: Held, where: Used, *, is_epochs: bool
) -> Iterator[tuple[str, Any]]:
    values = Values(frame, held)
    before = _before(source, values, where, is_epochs=is_epochs)
    if not before:
        return
    events = Reader(values, source.source).read(before).events
    at_head = len(_around_passes(events)[0])
    if any(where) and not all(where):
        events = events[:at_head] if where.at_heads else events[at_head:]
    flow = _Flow(values).over(events)
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
        for path in [p for p in flow.made if is_part(event.path, p)]:
            names = flow.made[path] if uses.decide(path) else ()
            yield from ((n, values.of(n)) for n in names if not values.is_held(n))


def fed_by(loop: weakref.ref[Any], held: Held, paths: Collection[str]) -> set[str]:
    """Returns those of some variables on which the data of a loop depends."""
    found = set()
    for frame in frames_over(loop()):
        if (source := loop_at(frame)) is not None:
            values = Values(frame, held)
            before = _before(source, values, Used(True, True), is_epochs=False)
            events = Reader(values, source.source).read(before).events
            data = Reader(values, source.source)
            data.visit(source.data)
            named = dict.fromkeys(e.path for e in (*events, *data.events) if e.verb is Verb.READ)
            reads = {each: read_by_loaders([each], values) for each in named if paths}
            for path in paths:
                # What reads it by itself, a data set say, stands for it.
                own = [path, *(n for n, read in reads.items() if path in read)]
                made = {each for n in own for each in (n, *_Flow(values, of=n).over(events).made)}
                found |= {path for e in data.events for each in made if is_part(e.path, each)}
    return found


def _before(
    source: LoopSource, values: Values, where: Used, *, is_epochs: bool
) -> Sequence[ast.stmt]:
    """Returns the statements before a loop that a resume runs again, behind the run's making.

    Of a loop around it, but that over epochs, those at the end of a turn are among them.
    """
    if not (any(where) or is_epochs) and source.outermost is source.loop:
        # The loop over epochs is in another function, and has called this one.
        return []
    begins = source.loop.lineno
    found: list[ast.stmt] = []
    later: list[ast.stmt] = []
    waiting = [each for each in source.scope if each.lineno < begins]
    while waiting:
        each = waiting.pop(0)
        if (each.end_lineno or each.lineno) < begins:
            makes_run = isinstance(each, ast.Assign) and any(
                values.is_run(path)
                for t in each.targets
                if (path := Room(source.source, values).path(t))
            )
            found = [] if makes_run else [*found, each]
            continue
        if not any(where) and isinstance(each, ast.For | ast.While):
            break
        blocks = [b for n in ("body", "orelse", "finalbody") if (b := getattr(each, n, None))]
        waiting = [e for block in blocks for e in block if e.lineno < begins] + waiting
        if where.between and isinstance(each, ast.For | ast.While) and not _is_over_epochs(each):
            ends = source.loop.end_lineno or begins
            later += [e for block in blocks for e in block if e.lineno > ends]
    # What a first turn has not come by stands behind a pass.
    return [*found, *([source.loop] if later else ()), *later]


def _is_over_epochs(statement: ast.stmt) -> bool:
    over = getattr(statement, "iter", statement)
    return over is not statement and any(getattr(e, "attr", "") == "epochs" for e in ast.walk(over))


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
        depth = 0
        for each in events:
            if each.verb in {Verb.BEGIN, Verb.END}:
                depth += 1 if each.verb is Verb.BEGIN else -1
            elif not depth:
                self._take(each)
        return self

    def _take(self, event: Event) -> None:
        statement = _statement_of(event.node, event.room)
        if event.verb is Verb.READ:
            of = [names for path, names in self.made.items() if is_part(event.path, path)]
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
        is_answer = isinstance(statement, ast.Return) or room.is_definition(statement)
        if is_answer and room.call is not None and room.outer is not None:
            self._heat(_statement_of(room.call, room.outer), room.outer, of)

    def _is_source(self, event: Event) -> bool:
        path, values = event.path, self._values
        if self._of:
            return within(path, self._of)
        if not any(map(values.is_weights, prefixes_of(path))):
            return False
        if path.rpartition(".")[2] in NEUTRAL:
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
    ends = (e for e in lies_in if isinstance(e, ast.stmt) or room.is_definition(e))
    return next(ends, node)


def _can_be_kept(value: object) -> bool:
    """Whether it is data: an array, a list and the like, a threshold, or a model of its own."""
    if is_array(value) or (is_row(value) or isinstance(value, tuple)):
        return True
    if is_lone(value):
        return value is None or isinstance(value, float)
    return hasattr(type(value), "load_state_dict") and hasattr(type(value), "parameters")
