"""What calls write into: ``rows.append(x)``, ``next(noises)``, ``torch.add(a, b, out=sums)``."""

from __future__ import annotations

import ast
import dataclasses
import enum
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from colabkit.frameworks.estimators import is_estimator
from colabkit.frameworks.users_own import attributes_of
from colabkit.parsing import tree_of
from colabkit.runs.loop_paths import path_of, prefixes_of
from colabkit.runs.loop_rooms import SETTING, Done, Given, Room, done_by, some_of
from colabkit.runs.loop_syntax import is_namespace, set_at
from colabkit.runs.loop_values import (
    LEARNING,
    Values,
    counted_by,
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
    is_trained,
    is_waiting,
)

CHANGING = frozenset({
    "__delitem__", "__iadd__", "__ior__", "__setitem__", "add", "add_item", "add_items",
    "add_with_ids", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert",
    "pop", "popitem", "popleft", "push", "put", "remember", "remove", "reverse", "rotate",
    "setdefault", "sort", "store", "update",
})  # fmt: skip
_WRITING = frozenset({
    "__iadd__", "__imul__", "__isub__", "__itruediv__", "__setitem__", "assign", "assign_add",
    "assign_sub", "fill",
})  # fmt: skip
# Nothing of what was there is left behind them.
_OVERWRITING = frozenset({"copy_", "fill_", "normal_", "ones_", "uniform_", "zero_", "zeros_"})
# Of objects with a state of their own.
_OF_STATES = frozenset({"load_state_dict", "update", "update_parameters"})
_OF_METRICS = frozenset({"update", "update_state"})
_SETTING_BACK = frozenset({"reset", "reset_state"})
# Of objects that give back what they took before, and of environments.
_ANSWERING = frozenset({"push_and_pop", "query", "step"})
_CHANGING_FIRST = frozenset({
    "heapify", "heappop", "heappush", "heappushpop", "heapreplace", "insort", "insort_left",
    "insort_right", "shuffle",
})  # fmt: skip
_WRITING_FIRST = frozenset({
    "copyto", "delitem", "fill_diagonal", "place", "put", "put_along_axis", "putmask", "setitem",
})  # fmt: skip
_WEIGHTS_OF = frozenset({"buffers", "named_buffers", "named_parameters", "parameters"})
_DRAWING = frozenset({"binomial", "choice", "integers", "poisson", "sample"})
# Of estimators: what begins them anew, and what goes on from what they are.
_FITTING = frozenset({"fit", "fit_predict", "fit_transform"})
_GROWING = frozenset({*LEARNING, "boost", "refit", "update"})
# Files and the cursors of databases are iterators as well.
_OF_ITERATORS = frozenset({
    "__next__", "fetchall", "fetchmany", "fetchone", "read", "read1", "readinto", "readline",
    "readlines", "send", "throw",
})  # fmt: skip
READING_ON = frozenset({
    "all", "any", "dict", "enumerate", "filter", "islice", "list", "map", "max", "min", "set",
    "sorted", "sum", "tuple", "zip",
})  # fmt: skip

_GLOBALS = ast.Call(ast.Name("globals"), [], [])


class Verb(enum.Enum):
    """What is done to a variable; or that a loop over a run's data begins, and ends."""

    READ = enum.auto()
    SET = enum.auto()
    CHANGE = enum.auto()
    BEGIN = enum.auto()
    END = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Event:
    """That a variable is read, set or changed in place.

    Attributes:
        verb: Which of these.
        path: The variable.
        node: Where.
        room: In which statements.
    """

    verb: Verb
    path: str
    node: ast.AST
    room: Room


class Write(NamedTuple):
    """That a call writes.

    Attributes:
        verb: Whether it changes or sets what it writes into.
        path: That.
        given: What it is given beside.
        reads: Whether what it gives back is of that, and None where it does if anybody takes it.
    """

    verb: Verb
    path: str
    given: Sequence[Given]
    reads: bool | None


def write_of(done: Done, node: ast.Call, room: Room) -> Write | None:
    """Returns what a call writes into; None where it is not known to.

    Args:
        done: What it does.
        node: The call.
        room: Where it stands.
    """
    verb, path, given, values = done.verb, done.path, done.given, room.values
    if (attribute := done.sets()) is not None:
        return Write(Verb.SET, attribute, given, reads=False)
    first = given[0].path if given else None
    if first is not None and _writes_first(verb, values.of(first), done, room):
        reads = verb in {"heappop", "heappushpop", "heapreplace", "next"}
        reads |= verb.startswith("insort")
        is_over = verb in _OVERWRITING and room.is_whole(given[0].node)
        return Write(Verb.SET if is_over else Verb.CHANGE, first, given[1:], reads or None)
    if path is None:
        return None
    value = values.of(path)
    if verb in _SETTING_BACK and is_metric(value):
        return Write(Verb.SET, path, [], reads=False)
    if verb in _FITTING and is_estimator(value) and not attributes_of(value).get("warm_start"):
        return Write(Verb.SET, path, given, reads=False)
    receiver = node.func.value if isinstance(node.func, ast.Attribute) else node
    is_plain = room.is_whole(receiver) or done.is_bound
    if not _changes(verb, path, given, room, is_plain=is_plain):
        return None
    is_over = verb in _OVERWRITING and is_array(value) and is_plain
    return Write(Verb.SET if is_over else Verb.CHANGE, path, given, verb in _ANSWERING or None)


def may_be_set(done: Done, node: ast.Call, room: Room) -> list[str]:
    """Returns the paths of which a call sets some, nobody can tell which: ``setattr(o, name, 1)``.

    Args:
        done: What it does.
        node: The call.
        room: Where it stands.
    """
    receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
    if done.verb == "exec" and receiver is None and node.args:
        paths = some_of(node.args[1] if len(node.args) > 1 else _GLOBALS, room)
        return _among(paths, _set_in(node.args[0]))
    if done.verb in SETTING and node.args and done.sets() is None:
        return some_of(receiver if len(node.args) == 2 and receiver else node.args[0], room)
    if receiver is None or not is_namespace(receiver) or done.verb not in CHANGING:
        return []
    named = {each.keyword for each in done.given}
    return _among(some_of(receiver, room), named if named.isdisjoint({None, "**"}) else set())


def _among(paths: Sequence[str], names: Collection[str | None]) -> list[str]:
    """Returns the paths that end in one of some names, all where there are none."""
    return [each for each in paths if not names or each.rpartition(".")[2] in names]


def _set_in(text: ast.expr) -> set[str | None]:
    """Returns the names that source sets, as far as it is there to be read."""
    source = text.value if isinstance(text, ast.Constant) else None
    tree = tree_of(source) if isinstance(source, str) else None
    return set() if tree is None else {n for each in ast.walk(tree) for n in set_at(each)}


def counted_beside(done: Done, room: Room) -> list[str]:
    """Returns the attributes in which a method of a library's object counts."""
    names = counted_by(room.values.of(done.path or ""), done.verb)
    return [f"{done.path}.{name}" for name in names]


def written_beside(done: Done, room: Room, *, is_in_pass: bool) -> Iterator[tuple[Verb, str]]:
    """Yields what else a call does to what it is given, and to whose method it is."""
    values = room.values
    if done.function is not None and is_metric(values.of(done.function)):
        yield Verb.CHANGE, done.function
    for each in done.given:
        if each.path is None:
            continue
        if each.keyword == "out":
            yield Verb.SET if room.is_whole(each.node) else Verb.CHANGE, each.path
        elif done.verb in READING_ON and not is_in_pass and is_iterator(values.of(each.path)):
            yield Verb.CHANGE, each.path


def _writes_first(verb: str, value: Any, done: Done, room: Room) -> bool:
    if verb in _CHANGING_FIRST:
        return True
    if verb == "next":
        return is_iterator(value)
    owner = None if done.path is None else room.values.of(done.path)
    if verb == "at":
        return type(owner).__name__ == "ufunc"
    is_functions = done.path is None or isinstance(owner, ModuleType)
    if verb in _WRITING_FIRST:
        return is_functions and (is_row(value) or is_array(value))
    if not (is_functions and verb.endswith("_")) or verb.startswith(("__", "clip_grad")):
        return False
    parts = value if isinstance(value, list | tuple) else [value]
    return bool(parts) and all(is_array(each) and not is_trained(each) for each in parts)


def _changes(verb: str, path: str, given: Sequence[Given], room: Room, *, is_plain: bool) -> bool:
    value = room.values.of(path)
    if is_estimator(value):
        return verb in _FITTING or verb in _GROWING
    if is_learner(value) and verb in LEARNING:
        return True
    if is_metric(value) and not has_state(value):
        return verb in _OF_METRICS
    if is_waiting(value):
        return verb.startswith("on_")
    if has_state(value) and verb in _OF_STATES:
        return is_stepping(value) or not hasattr(type(value), "step")
    if verb in _ANSWERING and not is_plain:
        return False
    if verb in _ANSWERING:
        # Those of JAX are functions, which take their state.
        is_acted_on = is_environment(value) and len(given) <= 1
        # One around another that is held is read: it may count by itself.
        is_acted_on |= is_stepping(value) and not room.values.is_around_held(path)
        return is_acted_on if verb == "step" else is_pool(value)
    if verb in _OF_ITERATORS:
        return is_iterator(value)
    in_place = verb in _WRITING or (verb.endswith("_") and not verb.startswith("_"))
    if verb in CHANGING and not (verb.startswith("__") and is_array(value)):
        return is_pool(value) or not room.values.has(path) or room.values.is_answer(path)
    return in_place and (is_array(value) or is_single(value))


def is_steady(over: ast.expr, paths: Iterable[str], written: Container[str], room: Room) -> bool:
    """Whether a loop has as many turns whenever it is come to: none, if it ever has none.

    Args:
        over: What it is over.
        paths: What is read there.
        written: What is set or changed somewhere.
        room: Where it stands.
    """
    values = room.values
    for path in filter(None, paths):
        is_told = is_lone(values.of(path)) and values.is_held(path)  # a schedule's own count
        if is_told or any(e in written or values.is_run(e) for e in prefixes_of(path)):
            return False
    calls = (each for each in ast.walk(over) if isinstance(each, ast.Call))
    return not any(_draws(done_by(each, room), values) for each in calls)


def _draws(done: Done, values: Values) -> bool:
    """Whether a call draws a number."""
    owner = values.of(done.path or "")
    name = owner.__name__ if isinstance(owner, ModuleType) else ""
    is_drawing = done.verb.startswith("rand") or done.verb in _DRAWING
    return is_drawing and (name.endswith("random") or name == "torch" or is_generator(owner))


def written_through(node: ast.For, room: Room) -> Iterator[str]:
    """Yields whose weights a loop over them writes into: ``for p in model.parameters()``."""
    owners = [e.func for e in ast.walk(node.iter) if isinstance(e, ast.Call)]
    paths = [
        room.path(each.value)
        for each in owners
        if isinstance(each, ast.Attribute) and each.attr in _WEIGHTS_OF
    ]
    targets = {e.id for e in ast.walk(node.target) if isinstance(e, ast.Name)}
    if paths and any(_writes_into(targets, e) for part in node.body for e in ast.walk(part)):
        yield from filter(None, paths)


def _writes_into(targets: set[str], node: ast.AST) -> bool:
    """Whether a node writes into what one of some names stands for."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name = node.func.attr
        written = path_of(node.func) if name.endswith("_") and not name.startswith("_") else None
    else:
        is_set = isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        written = path_of(node) if is_set else None
    return (written or "").partition(".")[0] in targets
