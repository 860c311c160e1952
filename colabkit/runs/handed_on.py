"""What the steps of a loop go by and hand on by themselves, read in its source."""

from __future__ import annotations

import ast
import enum
import functools
import weakref
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType
from typing import Any, NamedTuple

from colabkit.frameworks.estimators import is_estimator
from colabkit.frameworks.users_own import attributes_of, is_of_users_class
from colabkit.runs.leaving import frames_over
from colabkit.runs.loop_events import Reader
from colabkit.runs.loop_paths import ANY, path_of, prefixes_of, root_of
from colabkit.runs.loop_rooms import Room
from colabkit.runs.loop_source import LoopSource, call_at, loop_at
from colabkit.runs.loop_uses import Uses
from colabkit.runs.loop_values import (
    NEUTRAL,
    Held,
    Values,
    arrays_in,
    has_state,
    is_array,
    is_environment,
    is_generator,
    is_iterator,
    is_learner,
    is_lone,
    is_metric,
    is_pool,
    is_row,
    is_single,
    is_stepping,
    is_table,
    is_waiting,
    variables_of,
)
from colabkit.runs.loop_writes import Event, Verb

_WRITES = (Verb.SET, Verb.CHANGE)
_DEPTH_MAX = 3
_PLAIN = (str, bytes, tuple, frozenset, complex, enum.Enum)
_CODE = (BuiltinFunctionType, FunctionType, MethodType, functools.partial, type)
_COUNTED = ("best", "wait")  # by callbacks that wait for something to get better
_OF_RUNS = frozenset({"batches", "epochs", "items"})
_TRAINING = frozenset({"apply_gradients", "backward", "grad", "minimize", "train_on_batch"})


class Steps(NamedTuple):
    """What the steps of a loop go by, by path.

    Attributes:
        handed_on: What they change, and later ones go by.
        read: Arrays, and rows of such, that they are not seen to change.
    """

    handed_on: dict[str, Any]
    read: dict[str, Any]


def steps_of(loop: weakref.ref[Any], held: Held) -> Steps:
    """Returns what the steps of a loop go by beside what a checkpoint holds.

    Pools that they put something into and read; arrays that they write into and read;
    environments; numbers that they count and go by; what is None before the first step. What is
    only shown is for the eye. Asked from within the loop's generator, at the head of a ``for``
    statement.

    Args:
        loop: The generator.
        held: What a checkpoint holds.
    """
    found = Steps({}, {})
    for frame in frames_over(loop()):
        if (source := loop_at(frame)) is not None:
            values = Values(frame, held)
            uses, written = _uses_behind(frame, source, values)
            own = Reader(values, source.source, written).read([source.loop])
            found.handed_on.update(_handed_on(frame, source, own, uses, values))
            found.read.update(_only_read(own, uses, values))
    return found


def _only_read(own: Reader, uses: Uses, values: Values) -> Iterator[tuple[str, Any]]:
    """Yields the arrays that steps go by and, as far as their source says, leave as they are."""
    written = {each.path for each in own.events if each.verb in _WRITES}
    read = (p for e in own.events if e.verb is Verb.READ for p in prefixes_of(e.path))
    for path in dict.fromkeys(read):
        is_seen_to = values.is_held(path) or not written.isdisjoint(prefixes_of(path))
        if arrays_in(values.of(path)) and not is_seen_to and uses.decide(path):
            yield path, values.of(path)


def spelled(loop: weakref.ref[Any], held: Held, path: str) -> str:
    """Returns a path as code has it: of dicts, over whose parts it loops, the ``values()``."""
    for frame in frames_over(loop()):
        values = Values(frame, held)
        if values.is_yet_to_be_set(path):
            return f":{path}"
        for row in reversed([each.removesuffix(ANY) for each in prefixes_of(path)]):
            if path.startswith(row + ANY) and isinstance(values.of(row), dict):
                path = f"{row}.values(){path[len(row) :]}"
    return path


def trains(loop: weakref.ref[Any], held: Held) -> bool:
    """Whether the steps of a loop are seen to change weights; asked as ``handed_on`` is."""
    for frame in frames_over(loop()):
        if (source := loop_at(frame)) is not None:
            values = Values(frame, held)
            read = Reader(values, source.source).read([source.loop])
            owners = (e.path.rpartition(".")[0] for e in read.events if e.verb is Verb.SET)
            if not read.called.isdisjoint(_TRAINING) or any(map(values.is_run, owners)):
                return True
    return False


def counts_for_eye(loop: weakref.ref[Any], held: Held) -> bool:
    """Whether nothing but what is shown goes by the numbers that ``enumerate`` gives a loop."""
    for frame in frames_over(loop()):
        source = loop_at(frame)
        numbers = None if source is None else _numbers_of(source)
        if source is not None and numbers is not None:
            return not _uses_behind(frame, source, Values(frame, held))[0].decide(numbers)
    return False


def _uses_behind(
    frame: FrameType, source: LoopSource, values: Values
) -> tuple[Uses, frozenset[str]]:
    """Returns what tells whether a loop, or what follows it, goes by a variable; and what is set.

    The latter by path, wherever it is set or changed there.
    """
    behind = Reader(values, source.source).read(source.following())
    written = frozenset(each.path for each in behind.events if each.verb in _WRITES)
    uses = Uses(behind, values, lambda: is_returned_on(frame, values.held), loop=source.loop)
    return uses, written


def _numbers_of(source: LoopSource) -> str | None:
    data = source.data
    while isinstance(data, ast.Call) and path_of(data.func) != "enumerate" and data.args:
        data = data.args[0]  # a progress bar's
    target = getattr(source.loop, "target", None)
    is_counted = isinstance(data, ast.Call) and path_of(data.func) == "enumerate"
    return path_of(target.elts[0]) if is_counted and isinstance(target, ast.Tuple) else None


def turns_by_itself(loop: weakref.ref[Any]) -> bool:
    """Whether a ``for`` statement over something else calls ``next`` on a loop over data."""
    sources = filter(None, map(loop_at, frames_over(loop())))
    return any(
        isinstance(each.loop, ast.For)
        and each.data is not each.loop.iter
        and not any(getattr(n, "attr", "") in _OF_RUNS for n in ast.walk(each.loop.iter))
        for each in sources
    )


def _handed_on(
    frame: FrameType, source: LoopSource, own: Reader, uses: Uses, values: Values
) -> Iterator[tuple[str, Any]]:
    """Yields the variables that steps change and later ones go by, by path."""
    for path in dict.fromkeys(each.path for each in own.events if each.verb in _WRITES):
        is_there = values.has(path) or values.is_yet_to_be_set(path)
        is_read_first = path in own.read_first
        is_from_before = is_read_first or own.may_leave(path)
        if _puts_another(path, own.events, values) and (
            is_from_before or not is_chosen(values.of(path))
        ):
            yield path, values.of(path)
        if not (is_there and is_from_before) or values.is_held(path):
            continue
        value = values.of(path)
        if is_metric(value) and own.sets_last(path):
            continue  # no turn begins with what another has summed up
        verbs = {each.verb for each in own.events if each.path == path}
        if is_waiting(value) and Verb.CHANGE in verbs:
            own_of = attributes_of(value)
            yield from ((f"{path}.{name}", own_of[name]) for name in _COUNTED if name in own_of)
            continue
        is_handed_on = _is_set(value, verbs) or _is_changed(value, verbs)
        is_handed_on |= values.is_answer(path) and Verb.CHANGE in verbs
        goes_by = is_stepping(value) or _is_of_data(path, values)
        goes_by = is_handed_on and (
            goes_by
            or uses.decide_behind(path)
            or (is_read_first and uses.decide_but(path, own.settled(path)))
        )
        if goes_by or (is_handed_on and _is_read_behind(frame, frame, path, values)):
            yield path, value
    for path in dict.fromkeys(_drawn_from(own.events, source)):
        if is_generator(values.of(path)) and not values.is_held(path):
            yield path, values.of(path)


def _puts_another(path: str, events: Iterable[Event], values: Values) -> bool:
    """Whether a loop puts another object in the place of one that the run was given."""
    value = values.of(path)
    is_own = any(values.of(each) in values.held for each in prefixes_of(path)[:-1])
    if is_own or not values.held.goes_on_with(value):
        return False
    assigned = (_assigned(e) for e in events if e.verb is Verb.SET and e.path == path)
    return any(e is not None and not _is_same(*e, path, values) for e in assigned)


def _assigned(event: Event) -> tuple[ast.expr, Room] | None:
    """Returns what a variable is set to, as far as an assignment says it."""
    kinds = (ast.Assign, ast.AnnAssign, ast.NamedExpr)
    for each in event.room.source.around(event.node):
        if isinstance(each, kinds):
            return None if each.value is None else (each.value, event.room)
        if isinstance(each, ast.stmt):
            return None
    return None


def _is_same(value: ast.expr, room: Room, path: str, values: Values) -> bool:
    """Whether what a variable is set to is what it was: ``model = model.to(device)``."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        value = value.func.value if value.func.attr in NEUTRAL else value
    found = room.path(value)
    return found is not None and values.of(found) is values.of(path)


def _is_of_data(path: str, values: Values) -> bool:
    """Whether it is an attribute of a data set, which loaders read."""
    owner, _, name = path.rpartition(".")
    value = values.of(owner)
    return bool(owner and name) and hasattr(type(value), "__getitem__") and not is_row(value)


def _drawn_from(events: Iterable[Event], source: LoopSource) -> Iterator[str]:
    """Yields the paths that the steps read, but those that only loaders are given."""
    for each in events:
        around = [each.node, *each.room.source.around(each.node)]
        names = (path_of(e.func) or "" for e in around if isinstance(e, ast.Call))
        to_loader = any(n.endswith(("Loader", "Sampler", "random_split")) for n in names)
        if each.verb is Verb.READ and not to_loader and source.data not in around:
            yield each.path
            yield each.path.rpartition(".")[0]


def is_returned_on(frame: FrameType, held: Held, depth: int = 0) -> bool:
    """Whether anything but what is shown follows from what the function of a frame returns."""
    caller = frame.f_back
    found = call_at(caller) if caller is not None and depth < _DEPTH_MAX else None
    if caller is None or found is None:
        return False
    values = Values(caller, held)
    reader = Reader(values, found.source).read(found.scope)
    uses = Uses(reader, values, lambda: is_returned_on(caller, held, depth + 1))
    return uses.leads_on(found.call, Room(found.source, values), "")


def _is_read_behind(
    caller_of: FrameType, frame: FrameType, path: str, values: Values, depth: int = 0
) -> bool:
    """Whether a function's callers go by a variable of theirs that its loop changes.

    Args:
        caller_of: The function, or a caller of it.
        frame: The function.
        path: The variable, as it knows it.
        values: What its names stand for.
        depth: How far away the first of them is.
    """
    caller = caller_of.f_back
    found = call_at(caller) if caller is not None and depth < _DEPTH_MAX else None
    if caller is None or found is None:
        return False
    if names := [*_known_as(caller, frame, path, values)]:
        own = Values(caller, values.held)
        read = Reader(own, found.source).read(found.following())
        uses = Uses(read, own, lambda: is_returned_on(caller, values.held, depth + 1))
        if any(map(uses.decide, names)):
            return True
    return _is_read_behind(caller, frame, path, values, depth + 1)


def _known_as(caller: FrameType, frame: FrameType, path: str, values: Values) -> Iterator[str]:
    """Yields how a caller names what a function knows as a path, where it can be the caller's."""
    root = root_of(path)
    own, code = frame.f_code, caller.f_code
    is_global = root not in {*own.co_varnames, *own.co_freevars, *own.co_cellvars}
    is_shared = root in own.co_freevars and root in {*code.co_freevars, *code.co_cellvars}
    if is_global and caller.f_globals is frame.f_globals:
        is_shared = root not in code.co_varnames
    if is_shared:
        yield path
    if is_global or root in {*own.co_freevars, *own.co_varnames[: _arguments_of(own)]}:
        owners = {each: values.of(each) for each in prefixes_of(path)}
        rest_of = {id(e): path[len(p) :] for p, e in owners.items() if not is_lone(e)}
        for name, value in variables_of(caller).items():
            if id(value) in rest_of:
                yield name + rest_of[id(value)]


def _arguments_of(code: CodeType) -> int:
    return code.co_argcount + code.co_kwonlyargcount


def _is_set(value: object, verbs: set[Verb]) -> bool:
    is_data = all(hasattr(type(value), each) for each in ("__iter__", "__len__"))
    is_data = is_array(value) or (is_data and not hasattr(type(value), "shape"))
    is_plain = is_lone(value) or is_single(value) or is_row(value) or isinstance(value, _PLAIN)
    is_own = is_of_users_class(type(value)) and not has_state(value)
    is_own |= is_estimator(value)
    return Verb.SET in verbs and (is_plain or is_data or is_own or is_chosen(value))


def is_chosen(value: Any) -> bool:
    """Whether steps go by which one it is: a function, or a loss without weights."""
    if isinstance(value, _CODE):
        return True
    is_module = has_state(value) and hasattr(type(value), "buffers")
    return is_module and not any(True for each in (value.parameters, value.buffers) for _ in each())


def _is_changed(value: object, verbs: set[Verb]) -> bool:
    kinds = (is_pool, is_environment, is_stepping, is_array, is_single, has_state, is_metric)
    others = (is_iterator, is_table, is_estimator, is_learner)
    return Verb.CHANGE in verbs and any(is_such(value) for is_such in (*kinds, *others))
