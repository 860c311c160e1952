"""What the statements of a loop read, set and change, in order, and what becomes of what they read.

A variable, or an attribute of one, is named by its path: ``best``, ``self.best``. Functions and
methods of the user's that are called are read as well.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
from collections.abc import Iterator, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any

from colabkit.frameworks.bystanders import unwrapped
from colabkit.runs.loop_source import Source, function_at, path_of
from colabkit.runs.loop_values import (
    Values,
    has_state,
    is_array,
    is_environment,
    is_metric,
    is_pool,
    is_stepping,
    is_waiting,
)

_DEPTH_MAX, _EVENTS_MAX = 4, 20_000
CHANGING = frozenset({
    "add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop",
    "popitem", "popleft", "push", "put", "remember", "remove", "reverse", "rotate", "setdefault",
    "sort", "store", "update",
})  # fmt: skip
_WRITING = frozenset({"assign", "assign_add", "assign_sub", "fill"})
# Of objects with a state of their own.
_OF_STATES = frozenset({"load_state_dict", "update", "update_parameters"})
_WEIGHTS_OF = frozenset({"buffers", "named_buffers", "named_parameters", "parameters"})
_OF_METRICS = frozenset({"update", "update_state"})
_SETTING_BACK = frozenset({"reset", "reset_state"})
# Of objects that give back what they took before, and of environments.
_ANSWERING = frozenset({"push_and_pop", "query", "step"})
_CHANGING_FIRST = frozenset({
    "heapify", "heappop", "heappush", "heappushpop", "heapreplace", "insort", "insort_left",
    "insort_right", "shuffle",
})  # fmt: skip
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_PASSES = frozenset({"batches", "items"})


class Verb(enum.Enum):
    """What is done to a variable; or that a loop over a run's data begins, and ends."""

    READ = enum.auto()
    SET = enum.auto()
    CHANGE = enum.auto()
    BEGIN = enum.auto()
    END = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Statements that are run with names of their own.

    Attributes:
        source: Where they stand.
        names: What their names are outside, by name; all others are alike.
        call: The call, or the property that is read, which runs them; None for the loop itself.
        outer: Where that stands.
    """

    source: Source
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    call: ast.expr | None = None
    outer: Room | None = None

    def path(self, node: ast.AST) -> str | None:
        """Returns the path that a node names, as the loop knows it."""
        path = path_of(node)
        root, dot, rest = (path or "").partition(".")
        return None if path is None else self.names.get(root, root) + dot + rest


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


class Reader(ast.NodeVisitor):
    """Takes down the events of statements.

    Args:
        values: What the loop's names stand for.
        source: Where the statements stand.
    """

    def __init__(self, values: Values, source: Source) -> None:
        self._values = values
        self._room = Room(source)
        self._entered: list[Any] = []
        self._hidden: set[str] = set()
        self.events: list[Event] = []
        # The names of all functions and methods that are called.
        self.called: set[str] = set()
        # Reads of arguments that are followed into the function that was called.
        self.followed: set[ast.AST] = set()

    def read(self, statements: Sequence[ast.AST]) -> Reader:
        for each in statements:
            self.visit(each)
        return self

    def _note(self, verb: Verb, path: str | None, node: ast.AST) -> None:
        is_hidden = path is not None and path.partition(".")[0] in self._hidden
        if path is not None and not is_hidden and len(self.events) < _EVENTS_MAX:
            self.events.append(Event(verb, path, node, self._room))

    def visit_Name(self, node: ast.Name) -> None:
        self._named(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._named(node)

    def _named(self, node: ast.Name | ast.Attribute) -> None:
        path = self._room.path(node)
        if path is None:
            self.generic_visit(node)
            return
        is_read = isinstance(node.ctx, ast.Load)
        self._note(Verb.READ if is_read else Verb.SET, path, node)
        receiver, _, name = path.rpartition(".")
        is_of_object = isinstance(node, ast.Attribute) and receiver != ""
        if is_read and is_of_object and not self._values.is_held(receiver):
            found = _in_class(type(self._values.of(receiver)), name)
            if isinstance(found, property) and isinstance(found.fget, FunctionType):
                self._enter(node, found.fget, receiver)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.slice)
        container = container_of(node)
        path = self._room.path(container)
        if isinstance(node.ctx, ast.Load) or path is None:
            self.visit(node.value)
        else:
            self._note(Verb.CHANGE, path, node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for each in node.targets:
            self.visit(each)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._note(Verb.READ, self._room.path(container_of(node.target)), node.target)
        self.visit(node.value)
        self.visit(node.target)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        is_pass = any(map(self._is_pass, ast.walk(node.iter)))
        self._note(Verb.BEGIN if is_pass else Verb.READ, "", node)
        self._turns([node.target, *node.body])
        for path in self._written_through(node):
            self._note(Verb.CHANGE, path, node)
        self._note(Verb.END if is_pass else Verb.READ, "", node)
        self.read(node.orelse)

    def _written_through(self, node: ast.For) -> Iterator[str]:
        """Yields whose weights a loop over them writes into: ``for p in model.parameters()``."""
        owners = [e.func for e in ast.walk(node.iter) if isinstance(e, ast.Call)]
        paths = [
            self._room.path(each.value)
            for each in owners
            if isinstance(each, ast.Attribute) and each.attr in _WEIGHTS_OF
        ]
        targets = {e.id for e in ast.walk(node.target) if isinstance(e, ast.Name)}
        if paths and any(_writes_into(targets, e) for part in node.body for e in ast.walk(part)):
            yield from filter(None, paths)

    def visit_While(self, node: ast.While) -> None:
        self._turns([node.test, *node.body])
        self.read(node.orelse)

    def _turns(self, nodes: Sequence[ast.AST]) -> None:
        """Reads what a loop does in each turn: twice, where what ends one stands between passes."""
        begun = len(self.events)
        self.read(nodes)
        if any(each.verb is Verb.BEGIN for each in self.events[begun:]):
            self.read(nodes)

    def _is_pass(self, node: ast.AST) -> bool:
        if not (isinstance(node, ast.Attribute) and node.attr in _PASSES):
            return False
        path = self._room.path(node.value)
        return path is not None and self._values.is_run(path)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        arguments = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
        self._hiding(arguments, node)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, _COMPREHENSIONS):
            targets = [e for each in node.generators for e in ast.walk(each.target)]
            self._hiding({name for each in targets for name in _set_at(each)}, node)
        else:
            super().generic_visit(node)

    def _hiding(self, own: set[str], node: ast.AST) -> None:
        """Visits what a node is made of, in which some names are its own."""
        hidden, self._hidden = self._hidden, self._hidden | own
        super().generic_visit(node)
        self._hidden = hidden

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._note(Verb.SET, node.name, node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._note(Verb.SET, node.name, node)

    def visit_Call(self, node: ast.Call) -> None:
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        verb = verb_of(node)
        self.called.add(verb)
        path = None if receiver is None else self._room.path(container_of(receiver))
        given = [*node.args, *(each.value for each in node.keywords)]
        if path is not None and verb in _SETTING_BACK and is_metric(self._values.of(path)):
            self._note(Verb.SET, path, node)
            return
        if verb in _CHANGING_FIRST and node.args:
            path = self._room.path(container_of(node.args[0]))
            self._all(given[1:])
            self._changed(path, node, reads=verb not in {"heappush", "heapify", "shuffle"})
            return
        if path is not None and self._changes(
            path, verb, given, is_plain=path_of(receiver or node) is not None
        ):
            self._all(given)
            self._changed(path, node, reads=verb in _ANSWERING or not _is_statement(node, self))
            return
        self.visit(node.func)
        self._all(given)
        if is_metric(self._values.of(called := self._room.path(node.func) or "")):
            self._note(Verb.CHANGE, called, node)
        function, owner = self._called(node)
        if function is not None:
            is_read = self._enter(node, function, owner)
            if is_read and owner is not None and owner == self._room.path(node.func):
                self.followed.add(node.func)  # an object whose __call__ it is

    def _all(self, nodes: Sequence[ast.expr]) -> None:
        for each in nodes:
            self.visit(each)

    def _changed(self, path: str | None, node: ast.AST, *, reads: bool) -> None:
        self._note(Verb.CHANGE, path, node)
        if reads:
            self._note(Verb.READ, path, node)

    def _changes(self, path: str, verb: str, given: Sequence[ast.expr], *, is_plain: bool) -> bool:
        value = self._values.of(path)
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
            is_acted_on |= is_stepping(value) and not self._values.is_around_held(path)
            return is_acted_on if verb == "step" else is_pool(value)
        in_place = verb in _WRITING or (verb.endswith("_") and not verb.startswith("_"))
        if verb in CHANGING:
            return is_pool(value) or not self._values.has(path)
        return in_place and is_array(value)

    def _enter(self, node: ast.expr, function: FunctionType, receiver: str | None) -> bool:
        """Reads what is called, where that is the user's own; returns whether it is."""
        if function in self._entered or len(self._entered) >= _DEPTH_MAX:
            return False
        if (found := function_at(function)) is None:
            return False
        source, definition = found
        inner = self._room_of(node, source, definition, receiver)
        for name in {each.id for each in ast.walk(definition) if isinstance(each, ast.Name)}:
            # What the function knows by that name, where the loop knows something else by it.
            if name not in inner.names and not self._values.knows(name, function):
                inner.names[name] = self._values.add(name, function)
        room, self._room = self._room, inner
        self._entered.append(function)
        self.read(definition.body)
        self._entered.pop()
        self._room = room
        return True

    def _called(self, node: ast.Call) -> tuple[FunctionType | None, str | None]:
        """Returns the function that is called, and the path of the object whose method it is."""
        path = self._room.path(node.func)
        value = unwrapped(None if path is None else self._values.of(path))
        if isinstance(value, MethodType):
            value = value.__func__
        elif isinstance(value, FunctionType):
            return value, None
        if path is None:
            return None, None
        receiver, _, name = path.rpartition(".")
        if value is not None or not receiver:
            receiver, name = path, "__call__"
        owner = self._values.of(receiver)
        if isinstance(owner, ModuleType) or self._values.is_held(receiver):
            return None, None
        method = unwrapped(_in_class(type(owner), name))
        return (method, receiver) if isinstance(method, FunctionType) else (None, None)

    def _room_of(
        self,
        node: ast.expr,
        source: Source,
        definition: ast.FunctionDef,
        receiver: str | None,
    ) -> Room:
        given = [each.arg for each in (*definition.args.posonlyargs, *definition.args.args)]
        keywords = [each.arg for each in definition.args.kwonlyargs]
        outer_names = {n for e in ast.walk(definition) for n in _declared(e)}
        set_within = {n for e in ast.walk(definition) for n in _set_at(e)}
        own = {*set_within, *given, *keywords}
        names = {name: f"{definition.name}:{name}" for name in own - outer_names}
        if receiver is not None and given:
            names[given.pop(0)] = receiver
        passed: list[tuple[str | None, ast.expr]] = []
        if isinstance(node, ast.Call):
            passed += zip(given, node.args, strict=False)
            passed += [(each.arg, each.value) for each in node.keywords]
        for name, value in passed:
            path = self._room.path(value)
            if name in own and path is not None and name not in set_within:
                names[name] = path
                self.followed.add(value)
            elif name in names:
                self._note(Verb.SET, names[name], value)
        return Room(source, names, node, self._room)


def is_conditional(event: Event) -> bool:
    """Whether a statement is run in some turns of the loop, and in others not."""
    child = event.node
    for parent in event.room.source.around(event.node):
        if isinstance(parent, ast.If) and child is not parent.test:
            other = parent.orelse if child in parent.body else parent.body
            own = event.path.rpartition(":")[2].rpartition(".")[2]
            if not any(own in _stored_in(each) for each in other):
                return True
        if isinstance(parent, ast.FunctionDef):
            break
        child = parent
    call, outer = event.room.call, event.room.outer
    if call is None or outer is None:
        return False
    return is_conditional(dataclasses.replace(event, node=call, room=outer))


def _writes_into(targets: set[str], node: ast.AST) -> bool:
    """Whether a node writes into what one of some names stands for."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name = node.func.attr
        written = path_of(node.func) if name.endswith("_") and not name.startswith("_") else None
    else:
        is_set = isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        written = path_of(node) if is_set else None
    return (written or "").partition(".")[0] in targets


def _stored_in(statement: ast.stmt) -> set[str]:
    nodes = [e for e in ast.walk(statement) if isinstance(e, ast.Name | ast.Attribute)]
    stored = [e for e in nodes if not isinstance(e.ctx, ast.Load)]
    return {e.id if isinstance(e, ast.Name) else e.attr for e in stored}


def within(path: str, whole: str) -> bool:
    """Whether a path names a variable or something of it."""
    return path == whole or path.startswith(f"{whole}.")


def is_part(path: str, other: str) -> bool:
    """Whether one of two paths names what the other does, or something of it."""
    return within(path, other) or within(other, path)


def _in_class(kind: type, name: str) -> object:
    return next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), None)


def container_of(node: ast.expr) -> ast.expr:
    """Returns what is written into by an index, or the node itself."""
    while isinstance(node, ast.Subscript | ast.Starred):
        node = node.value
    return node


def verb_of(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _is_statement(node: ast.AST, reader: Reader) -> bool:
    return isinstance(reader._room.source.parents.get(node), ast.Expr)


def _set_at(node: ast.AST) -> list[str]:
    is_set = isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    return [node.id] if is_set else []  # type: ignore[attr-defined]


def _declared(node: ast.AST) -> list[str]:
    return node.names if isinstance(node, ast.Global | ast.Nonlocal) else []
