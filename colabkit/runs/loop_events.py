"""What the statements of a loop read, set and change, in order, and what becomes of what they read.

A variable, or an attribute of one, is named by its path: ``best``, ``self.best``. Functions and
methods of the user's that are called are read as well.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from types import FunctionType, MethodType
from typing import Any

from colabkit.frameworks.code_variables import defaults_of
from colabkit.frameworks.users_own import attributes_of
from colabkit.runs.loop_paths import bound_once, container_of, each_of, path_of, root_of, within
from colabkit.runs.loop_rooms import (
    Called,
    Done,
    Given,
    Room,
    called_by,
    done_by,
    in_class,
    taken_apart,
)
from colabkit.runs.loop_source import Definition, Source, function_at
from colabkit.runs.loop_values import Values, is_iterator, is_metric, is_pool, is_row
from colabkit.runs.loop_writes import CHANGING, READING_ON, Verb, write_of

_DEPTH_MAX, _EVENTS_MAX = 4, 20_000
_WEIGHTS_OF = frozenset({"buffers", "named_buffers", "named_parameters", "parameters"})
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_PASSES = frozenset({"batches", "items"})


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
        self._room = Room(source, values)
        self._entered: list[Any] = []
        self._hidden: set[str] = set()
        self._is_in_pass = False
        self.events: list[Event] = []
        # The names of all functions and methods that are called.
        self.called: set[str] = set()
        # Reads of arguments that are followed into the function that was called.
        self.followed: set[ast.AST] = set()
        # By the call: the statements of the functions that were read.
        self.rooms: dict[ast.AST, Room] = {}

    def read(self, statements: Sequence[ast.AST]) -> Reader:
        for each in statements:
            self.visit(each)
        return self

    def _note(self, verb: Verb, path: str | None, node: ast.AST) -> None:
        is_hidden = path is not None and root_of(path) in self._hidden
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
            found = in_class(type(self._values.of(receiver)), name)
            if isinstance(found, property) and isinstance(found.fget, FunctionType):
                self._enter(node, Called(found.fget, receiver), [])
            elif isinstance(found, functools.cached_property):
                self._enter(node, Called(found.func, receiver, path), [])
            call = self._room.source.parents.get(node)
            is_called = isinstance(call, ast.Call) and call.func is node
            if name in CHANGING and not is_called and is_pool(self._values.of(receiver)):
                self._note(Verb.CHANGE, receiver, node)  # whoever has the method may call it

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.slice)
        is_read = isinstance(node.ctx, ast.Load)
        if is_read and (path := self._room.path(node)) is not None:
            self._note(Verb.READ, path, node)
            return
        path = self._room.path(container_of(node))
        if is_read or path is None:
            self.visit(node.value)
        else:
            self._note(Verb.CHANGE, path, node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for each in node.targets:
            if not self._is_other_name(each, node.value):
                self.visit(each)

    def _is_other_name(self, target: ast.expr, value: ast.expr) -> bool:
        """Takes a name for what it stands for: ``head = self.heads[0]``; returns whether it is."""
        path = self._room.path(value)
        return path is not None and self._stands_for(target, path)

    def _stands_for(self, target: ast.expr, path: str) -> bool:
        room = self._room
        if not isinstance(target, ast.Name) or not self._values.is_object(path):
            return False
        if not bound_once(target.id, target, room.source.around(target)):
            return False
        own = room.names.get(target.id, target.id)
        is_carried = any(e.verb is Verb.READ and within(e.path, own) for e in self.events)
        if is_carried or root_of(path) == own:
            return False
        room.names[target.id] = path
        return True

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._note(Verb.READ, self._room.path(container_of(node.target)), node.target)
        self.visit(node.value)
        self.visit(node.target)

    def visit_For(self, node: ast.For) -> None:
        is_pass = any(map(self._is_pass, ast.walk(node.iter)))
        in_pass, self._is_in_pass = self._is_in_pass, is_pass
        self.visit(node.iter)
        self._is_in_pass = in_pass
        self._note(Verb.BEGIN if is_pass else Verb.READ, "", node)
        over = [] if is_pass else [*taken_apart(node.target, node.iter)]
        rows = {name: self._room.path(row) for name, row in over}
        for row in rows.values():
            if row is not None and is_iterator(self._values.of(row)):
                self._note(Verb.CHANGE, row, node.iter)
        others = {n for n, row in rows.items() if row and self._stands_for(n, each_of(row))}
        targets = [e for e in ast.walk(node.target) if isinstance(e, ast.expr)]
        named = isinstance(node.target, ast.Name | ast.Tuple)
        set_here = [e for e in targets if isinstance(e, ast.Name)] if named else [node.target]
        self._turns([*(each for each in set_here if each not in others), *node.body])
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
        done = done_by(node, self._room)
        self.called.add(done.verb)
        if (write := write_of(done, node, self._room)) is not None:
            self._all(write.given)
            self._note(write.verb, write.path, node)
            reads = not _is_statement(node, self) if write.reads is None else write.reads
            if reads and write.verb is Verb.CHANGE:
                self._note(Verb.READ, write.path, node)
            return
        if (given_back := self._room.path(node)) is not None:
            self._note(Verb.READ, given_back, node)
        self.visit(node.func)
        self._all(done.given)
        self._note_beside(done, node)
        called = called_by(done, self._room)
        if called.function is not None:
            is_read = self._enter(node, called, done.given)
            if is_read and called.receiver in {None, done.function}:
                self.followed.add(node.func)  # a function, or an object whose __call__ it is
        else:
            self._enter_given(done)

    def _note_beside(self, done: Done, node: ast.Call) -> None:
        """Notes what a call writes into of what it is given."""
        if is_metric(self._values.of(done.function or "")):
            self._note(Verb.CHANGE, done.function, node)
        for each in done.given:
            if each.path is None:
                continue
            if each.keyword == "out":
                self._note(Verb.SET, each.path, node)
            elif done.verb in READING_ON and self._is_read_on(each.path):
                self._note(Verb.CHANGE, each.path, node)

    def _is_read_on(self, path: str) -> bool:
        return not self._is_in_pass and is_iterator(self._values.of(path))

    def _enter_given(self, done: Done) -> None:
        """Reads functions of the user's that something else is given, which calls them."""
        for each in done.given:
            value = None if each.path is None else self._values.of(each.path)
            if each.node is not None and isinstance(value, FunctionType | MethodType):
                self._enter(each.node, called_by(Done("", None, [], each.path), self._room), [])

    def _all(self, given: Sequence[Given]) -> None:
        for each in given:
            if each.node is not None and (each.keyword != "out" or each.path is None):
                self.visit(each.node)
            elif each.node is None:
                self._note(Verb.READ, each.path, self._room.source.tree)

    def _enter(self, node: ast.expr, called: Called, given: Sequence[Given]) -> bool:
        """Reads what is called, where that is the user's own; returns whether it is."""
        function = called.function
        if function is None or function in self._entered or len(self._entered) >= _DEPTH_MAX:
            return False
        if (found := function_at(function)) is None:
            return False
        source, definition = found
        names = self._names_in(definition, called, given)
        inner = Room(source, self._values, names, definition, node, self._room, called.remembers)
        for name in {each.id for each in ast.walk(definition) if isinstance(each, ast.Name)}:
            # What the function knows by that name, where the loop knows something else by it.
            if name not in inner.names and not self._values.knows(name, function):
                inner.names[name] = self._values.add(name, function)
        self.rooms[node] = inner
        room, self._room = self._room, inner
        hidden, self._hidden = self._hidden, set()
        self._entered.append(function)
        body = definition.body
        self.read(body if isinstance(body, list) else [body])
        self._entered.pop()
        self._room, self._hidden = room, hidden
        return True

    def _names_in(
        self, definition: Definition, called: Called, given: Sequence[Given]
    ) -> dict[str, str]:
        """Returns what a function's own names are outside, and notes arguments that are set."""
        function = called.function
        assert function is not None  # noqa: S101  # for the type checker
        arguments = [e.arg for e in (*definition.args.posonlyargs, *definition.args.args)]
        keywords = [each.arg for each in definition.args.kwonlyargs]
        outer_names = {n for e in ast.walk(definition) for n in _declared(e)}
        set_within = {n for e in ast.walk(definition) for n in _set_at(e)}
        own = {*set_within, *arguments, *keywords}
        names = {name: f"{function.__name__}:{name}" for name in own - outer_names}
        if called.receiver is not None and arguments:
            names[arguments.pop(0)] = called.receiver
        in_place = [each for each in given if each.keyword is None]
        passed = [*zip(arguments, in_place, strict=False)]
        passed += [(each.keyword, each) for each in given if each.keyword is not None]
        missing = names.keys() - set_within - {name for name, _ in passed}
        for name, value in defaults_of(function).items():
            if name in missing and (is_row(value) or attributes_of(value)):
                names[name] = self._values.add_default(name, function, value)
        for name, each in passed:
            path = each.path if each.node is None else self._room.path(each.node)
            if name in own and path is not None and name not in set_within:
                names[name] = path
                if each.node is not None:
                    self.followed.add(each.node)
            elif name in names and each.node is not None:
                self._note(Verb.SET, names[name], each.node)
        return names


def is_conditional(event: Event) -> bool:
    """Whether a statement is run in some turns of the loop, and in others not."""
    child = event.node
    for parent in event.room.source.around(event.node):
        is_choice = isinstance(parent, ast.IfExp) and child is not parent.test
        if is_choice or (isinstance(parent, ast.BoolOp) and child is not parent.values[0]):
            return True
        if isinstance(parent, ast.If) and child is not parent.test:
            other = parent.orelse if child in parent.body else parent.body
            own = event.path.rpartition(":")[2].rpartition(".")[2]
            if not any(own in _stored_in(each) for each in other):
                return True
        if event.room.is_definition(parent):
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


def _is_statement(node: ast.AST, reader: Reader) -> bool:
    return isinstance(reader._room.source.parents.get(node), ast.Expr)


def _set_at(node: ast.AST) -> list[str]:
    is_set = isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    return [node.id] if is_set else []  # type: ignore[attr-defined]


def _declared(node: ast.AST) -> list[str]:
    return node.names if isinstance(node, ast.Global | ast.Nonlocal) else []
