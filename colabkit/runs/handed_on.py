"""What the steps of a loop go by and hand on by themselves, read in its source."""

from __future__ import annotations

import ast
import weakref
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from colabkit.runs.leaving import frames_over
from colabkit.runs.loop_events import Event, Reader, Room, Verb, is_conditional, within
from colabkit.runs.loop_source import LoopSource, call_at, loop_at, path_of
from colabkit.runs.loop_uses import Uses
from colabkit.runs.loop_values import (
    Held,
    Values,
    is_array,
    is_environment,
    is_generator,
    is_lone,
    is_pool,
    is_row,
    is_stepping,
)

_WRITES = (Verb.SET, Verb.CHANGE)
_DEPTH_MAX = 3


def handed_on(loop: weakref.ref[Any], held: Held, *, sees_on: bool) -> dict[str, Any]:
    """Returns the variables that steps of a loop change and later ones go by, by path.

    Pools that they put something into and read; arrays that they write into and read;
    environments; numbers that they count and go by; what is None before the first step. What is
    only shown is for the eye. Asked from within the loop's generator, at the head of a ``for``
    statement.

    Args:
        loop: The generator.
        held: What a checkpoint holds.
        sees_on: Whether what follows the loop goes by it, too: a pass that only evaluates begins
            anew.
    """
    found: dict[str, Any] = {}
    for frame in frames_over(loop()):
        if (source := loop_at(frame)) is not None:
            found |= dict(_in_loop(frame, source, held, sees_on=sees_on))
    return found


def _in_loop(
    frame: FrameType, source: LoopSource, held: Held, *, sees_on: bool
) -> Iterator[tuple[str, Any]]:
    values = Values(frame, held)
    own = Reader(values, source.source).read([source.loop])
    behind = source.following() if sees_on else [source.loop]
    uses = Uses(
        Reader(values, source.source).read(behind),
        values,
        lambda: sees_on and is_returned_on(frame, held),
    )
    set_first = _set_first(own.events)
    for path in dict.fromkeys(each.path for each in own.events if each.verb in _WRITES):
        is_from_before = not any(within(path, each) for each in set_first)
        if not (is_from_before and values.has(path)) or values.is_held(path):
            continue
        value = values.of(path)
        verbs = {each.verb for each in own.events if each.path == path}
        is_handed_on = _is_set(value, verbs) or _is_changed(value, verbs)
        goes_by = is_stepping(value) or _is_of_data(path, values)
        if is_handed_on and (goes_by or uses.decide(path)):
            yield path, value
    for path in dict.fromkeys(_drawn_from(own.events, source)):
        if is_generator(values.of(path)) and not values.is_held(path):
            yield path, values.of(path)


def _set_first(events: Iterable[Event]) -> set[str]:
    """Returns the paths that are set before they are read, whatever happens."""
    first: dict[str, Event] = {}
    for each in events:
        first.setdefault(each.path, each)
    return {p for p, each in first.items() if each.verb is Verb.SET and not is_conditional(each)}


def _is_of_data(path: str, values: Values) -> bool:
    """Whether it is an attribute of a data set, which loaders read."""
    owner, _, name = path.rpartition(".")
    return bool(owner and name) and hasattr(type(values.of(owner)), "__getitem__")


def _drawn_from(events: Iterable[Event], source: LoopSource) -> Iterator[str]:
    """Yields the paths that the steps read, but those that only loaders are given."""
    for each in events:
        around = [each.node, *each.room.source.around(each.node)]
        names = (path_of(e.func) or "" for e in around if isinstance(e, ast.Call))
        to_loader = any(n.endswith(("Loader", "Sampler", "random_split")) for n in names)
        if each.verb is Verb.READ and not to_loader and source.loop.iter not in around:
            yield each.path
            yield each.path.rpartition(".")[0]


def is_returned_on(frame: FrameType, held: Held, depth: int = 0) -> bool:
    """Whether anything but what is shown follows from what the function of a frame returns."""
    caller = frame.f_back
    found = call_at(caller) if caller is not None and depth < _DEPTH_MAX else None
    if caller is None or found is None:
        return False
    source, call, scope = found
    values = Values(caller, held)
    reader = Reader(values, source).read(scope)
    uses = Uses(reader, values, lambda: is_returned_on(caller, held, depth + 1))
    return uses.leads_on(call, Room(source), "")


def _is_set(value: object, verbs: set[Verb]) -> bool:
    is_data = all(hasattr(type(value), each) for each in ("__iter__", "__len__"))
    # Of arrays those alone that are no lone number.
    is_data = is_array(value) or (is_data and not hasattr(type(value), "shape"))
    is_plain = is_lone(value) or is_row(value) or is_data
    return Verb.SET in verbs and is_plain and not isinstance(value, str | bytes | tuple)


def _is_changed(value: object, verbs: set[Verb]) -> bool:
    return Verb.CHANGE in verbs and any(
        each(value) for each in (is_pool, is_environment, is_stepping, is_array)
    )
