"""What the statements of a loop read, set and change, in order, and what becomes of what they read.

A variable, or an attribute of one, is named by its path: ``best``, ``self.best``. Functions and
methods of the user's that are called are read as well.
"""

from __future__ import annotations

import ast
import contextlib
import functools
from collections.abc import Iterable, Sequence
from types import FunctionType, MethodType
from typing import Any

from colabkit.frameworks.code_variables import defaults_of
from colabkit.frameworks.users_own import attributes_of
from colabkit.runs.loop_choices import may_be_called
from colabkit.runs.loop_loaders import read_by_loaders
from colabkit.runs.loop_paths import (
    bound_once,
    each_of,
    in_class,
    root_of,
    within,
)
from colabkit.runs.loop_rooms import (
    NOBODY,
    Bound,
    Called,
    Done,
    Given,
    Room,
    begins_pass,
    called_by,
    done_by,
    method_of,
    names_in,
    names_within,
    some_of,
)
from colabkit.runs.loop_source import Definition, Source, function_at
from colabkit.runs.loop_syntax import is_namespace, set_at, taken_apart, takes_all
from colabkit.runs.loop_values import (
    Values,
    counts_itself,
    is_iterator,
    is_pool,
    is_row,
)
from colabkit.runs.loop_ways import Ways
from colabkit.runs.loop_writes import (
    CHANGING,
    Event,
    Verb,
    counted_beside,
    is_steady,
    may_be_set,
    write_of,
    written_beside,
    written_through,
)

_DEPTH_MAX, _EVENTS_MAX = 4, 20_000
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_INDEXING = {ast.Load: "__getitem__", ast.Store: "__setitem__", ast.Del: "__delitem__"}


class Reader(Ways, ast.NodeVisitor):
    """Takes down the events of statements.

    Args:
        values: What the loop's names stand for.
        source: Where the statements stand.
        written: The paths that are known to be set or changed by them.
    """

    def __init__(self, values: Values, source: Source, written: Iterable[str] = ()) -> None:
        super().__init__()
        self._values, self._written = values, frozenset(written)
        self._room = Room(source, values)
        self._entered: list[Any] = []
        # Functions that the statements themselves define, with the room they do it in.
        self._defined: dict[str, tuple[Definition, Room]] = {}
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
            if len(self.events) < _EVENTS_MAX:
                self.visit(each)
        return self

    def _note(self, verb: Verb, path: str | None, node: ast.AST) -> None:
        is_hidden = path is not None and root_of(path) in self._hidden
        if path is not None and not is_hidden and len(self.events) < _EVENTS_MAX:
            self.events.append(Event(verb, path, node, self._room))
            self.go_by(verb, path, node)

    def _count(self, path: str, node: ast.AST) -> None:
        """Notes that a library's object adds to an attribute, which goes on from what it was."""
        self._note(Verb.READ, path, node)
        if root_of(path) not in self._hidden:
            self.events.append(Event(Verb.SET, path, node, self._room))

    def _may_set(self, paths: Sequence[str], node: ast.AST) -> None:
        """Notes that some of what is named is set, nobody can tell which."""
        with self.maybe():
            for path in paths:
                self._note(Verb.SET, path, node)

    def visit_Name(self, node: ast.Name) -> None:
        self._room.views.pop("" if isinstance(node.ctx, ast.Load) else node.id, None)
        self._named(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value) if is_namespace(node) else self._named(node)

    def _named(self, node: ast.Name | ast.Attribute) -> None:
        path = self._room.path(node)
        if path is None:
            self.generic_visit(node)
            return
        if isinstance(node.ctx, ast.Load):
            self._read(path, node)
            return
        if (whole := self._room.written(node)) not in {None, path}:
            self._note(Verb.CHANGE, whole, node)
            return
        self._note(Verb.SET, path, node)
        receiver, found = self._found_in_class(path, node)
        if isinstance(found, property) and isinstance(found.fset, FunctionType):
            self._enter(node, Called(found.fset, receiver), [])

    def _read(self, path: str, node: ast.expr) -> None:
        """Notes that a variable or attribute is read, and reads what that runs."""
        self._note(Verb.READ, path, node)
        receiver, found = self._found_in_class(path, node)
        if receiver is None:
            return
        if counts_itself(self._values.of(receiver), path.rpartition(".")[2]):
            self._count(path, node)
        if isinstance(found, property) and isinstance(found.fget, FunctionType):
            self._enter(node, Called(found.fget, receiver), [])
        elif isinstance(found, functools.cached_property):
            self._enter(node, Called(found.func, receiver, path), [])
        call = self._room.source.parents.get(node)
        is_called = isinstance(call, ast.Call) and call.func is node
        is_change = path.rpartition(".")[2] in CHANGING and not is_called
        if is_change and is_pool(self._values.of(receiver)):
            self._note(Verb.CHANGE, receiver, node)  # whoever has the method may call it

    def _found_in_class(self, path: str, node: ast.expr) -> tuple[str | None, Any]:
        """Returns the path of whose attribute a path names, and what its class has by that name."""
        receiver, _, name = path.rpartition(".")
        if not (isinstance(node, ast.Attribute) and receiver) or self._values.is_held(receiver):
            return None, None
        return receiver, in_class(type(self._values.of(receiver)), name)

    def _enter_method(self, node: ast.expr, owner: ast.expr, name: str) -> None:
        """Reads a method of the user's that no call names: ``__iter__``."""
        path = self._room.path(owner)
        if path is not None and self._values.has(path) and not self._values.is_held(path):
            kind = type(self._values.of(path))
            self._enter(node, method_of(kind, name, path, f"{path}.{name}"), [])

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.slice)
        is_read = isinstance(node.ctx, ast.Load)
        self._enter_method(node, node.value, _INDEXING[type(node.ctx)])
        own = self._room.path(node)
        is_variable = own is not None and not own.endswith("]")
        if own is not None and (is_read or is_variable):
            self._note(Verb.READ if is_read else Verb.SET, own, node)
            return
        path = self._room.written(node)
        if is_namespace(node.value):
            self._may_set([] if is_read else some_of(node.value, self._room), node)
            self.visit(node.value)
        elif is_read or path is None:
            self.visit(node.value)
        else:
            is_over = takes_all(node.slice) and self._room.is_whole(node.value)
            self._note(Verb.SET if is_over else Verb.CHANGE, path, node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        viewed = self._room.viewed(node.value)
        for each in node.targets:
            if not self._is_other_name(each, node.value):
                self.visit(each)
            if viewed is not None and isinstance(each, ast.Name):
                self._room.views[each.id] = viewed

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
        if own == path:
            return True  # it was taken for that before
        is_carried = any(e.verb is Verb.READ and within(e.path, own) for e in self.events)
        if is_carried or root_of(path) == own:
            return False
        room.names[target.id] = path
        return True

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.visit(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and (view := self._room.views.get(node.target.id)):
            self.visit(node.value)
            self._note(Verb.CHANGE, view.path, node)
            return  # it stays what it is
        own = self._room.path(node.target)
        own = self._room.written(node.target) if own is None else own
        if own is not None:
            self._read(own, node.target)
        self.visit(node.value)
        self.visit(node.target)

    def visit_withitem(self, node: ast.withitem) -> None:
        self.visit(node.context_expr)
        path = self._room.path(node.context_expr)
        for name in ("__enter__", "__exit__"):
            self._enter_method(node.context_expr, node.context_expr, name)
        target = node.optional_vars
        if target is not None and not (path and self._stands_for(target, path)):
            self.visit(target)

    def visit_For(self, node: ast.For) -> None:
        begun = len(self.events)
        is_pass = begins_pass(node.iter, self._room)
        in_pass, self._is_in_pass = self._is_in_pass, is_pass
        self.visit(node.iter)
        self._is_in_pass = in_pass
        begins, ends = (Verb.BEGIN, Verb.END) if is_pass else (Verb.READ, Verb.READ)
        self._note(begins, "", node)
        asked = dict.fromkeys(each.path for each in self.events[begun:] if each.path)
        for path in read_by_loaders(asked, self._values, self.events) if is_pass else ():
            self._note(Verb.READ, path, node.iter)
        over = [] if is_pass else [*taken_apart(node.target, node.iter)]
        for row in dict.fromkeys(each for _, each in over):
            self._enter_method(row, row, "__iter__")
            self._enter_method(row, row, "__next__")
        rows = {name: self._room.path(each) for name, each in over}
        for path in filter(None, rows.values()):
            if is_iterator(self._values.of(path)):
                self._note(Verb.CHANGE, path, node.iter)
        others = {n for n, path in rows.items() if path and self._stands_for(n, each_of(path))}
        targets = [e for e in ast.walk(node.target) if isinstance(e, ast.expr)]
        named = isinstance(node.target, ast.Name | ast.Tuple)
        set_here = [e for e in targets if isinstance(e, ast.Name)] if named else [node.target]
        turn = [*(each for each in set_here if each not in others), *node.body]
        read = {each.path for each in self.events[begun:]}
        is_run = is_pass or is_steady(node.iter, read, self._written, self._room)
        self._turns(turn, is_run=is_run)
        for path in written_through(node, self._room):
            self._note(Verb.CHANGE, path, node)
        self._note(ends, "", node)
        self.read(node.orelse)

    def visit_While(self, node: ast.While) -> None:
        is_endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        self._note(Verb.READ, "", node)
        self._turns([node.test, *node.body], is_run=is_endless, is_endless=is_endless)
        self._note(Verb.READ, "", node)
        self.read(node.orelse)

    def _turns(self, nodes: Sequence[ast.AST], *, is_run: bool, is_endless: bool = False) -> None:
        """Reads what a loop does in each turn: twice, where what ends one stands between passes."""
        begun = len(self.events)
        self.turns(nodes, is_run=is_run, is_endless=is_endless)
        if any(each.verb is Verb.BEGIN for each in self.events[begun:]):
            self.turns(nodes, is_run=is_run, is_endless=is_endless)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_defaults(node.args)
        arguments = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
        self._hiding(arguments, [node.body], is_done=False)

    def _visit_defaults(self, arguments: ast.arguments) -> None:
        self.read([*arguments.defaults, *filter(None, arguments.kw_defaults)])

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, _COMPREHENSIONS):
            targets = [e for each in node.generators for e in ast.walk(each.target)]
            own = {n for e in targets for n in set_at(e)}
            is_done = not any(each.ifs for each in node.generators)
            self._hiding(own, [*ast.iter_child_nodes(node)], is_done=is_done)
        else:
            super().generic_visit(node)

    def _hiding(self, own: set[str], nodes: Sequence[ast.AST], *, is_done: bool) -> None:
        """Visits nodes in which some names are their own, and which are run, or may be."""
        hidden, self._hidden = self._hidden, self._hidden | own
        with contextlib.nullcontext() if is_done else self.maybe():
            self.read(nodes)
        self._hidden = hidden

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._define(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._define(node)

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.read(node.decorator_list)
        self._visit_defaults(node.args)
        path = self._room.names.get(node.name, node.name)
        self._note(Verb.SET, path, node)
        self._defined[path] = node, self._room

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._note(Verb.SET, node.name, node)

    def visit_Call(self, node: ast.Call) -> None:
        done = done_by(node, self._room)
        self.called.add(done.verb)
        self._may_set(may_be_set(done, node, self._room), node)
        if (write := write_of(done, node, self._room)) is not None:
            self._all(write.given)
            self._note(write.verb, write.path, node)
            is_taken = not isinstance(self._room.source.parents.get(node), ast.Expr)
            reads = is_taken if write.reads is None else write.reads
            if reads and write.verb is Verb.CHANGE:
                self._note(Verb.READ, write.path, node)
            self._enter_given(done)
            return
        if (given_back := self._room.path(node)) is not None:
            self._note(Verb.READ, given_back, node)
        self.visit(node.func)
        self._all(done.given)
        for each, path in written_beside(done, self._room, is_in_pass=self._is_in_pass):
            self._note(each, path, node)
        for path in counted_beside(done, self._room):
            self._count(path, node)
        self._enter_called(node, done)

    def _enter_called(self, node: ast.Call, done: Done) -> None:
        """Reads what a call runs, be it one of several."""
        around = [
            (path, self._defined.get(path), called_by(done._replace(function=path), self._room))
            for path in may_be_called(node.func, done.function, self._room, self._defined)
        ]
        known = [each for each in around if each[1] is not None or each[2].function is not None]
        if len(known) != len(around) or not known:
            self._enter_given(done)
        followed = {*self.followed}
        for path, defined, called in known:
            with contextlib.nullcontext() if len(around) == 1 else self.given_away():
                if defined is not None:
                    self._enter_defined(node, path, done.given)
                elif self._enter(node, called, done.given) and called.receiver in {None, path}:
                    self.followed.add(node.func)  # a function, or an object whose __call__ it is
        if len(around) > 1:  # what it is given goes into one of them, nobody can tell which
            self.followed = followed
            self.rooms.pop(node, None)

    def _enter_given(self, done: Done) -> None:
        """Reads functions of the user's that something else is given, which calls them."""
        for each in done.given:
            value = None if each.path is None else self._values.of(each.path)
            with self.given_away():
                if each.path in self._defined and each.node is not None:
                    self._enter_defined(each.node, each.path, [])
                elif each.node is not None and isinstance(value, FunctionType | MethodType):
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
        bound = self._bind(definition, called, given)
        names = bound.names
        for name, value in defaults_of(function).items():
            if name in bound.missing and (is_row(value) or attributes_of(value)):
                names[name] = self._values.add_default(name, function, value)
        around = (node, self._room, called.remembers, called.kind)
        inner = Room(source, self._values, names, definition, *around, bound.views)
        for name in names_within(definition):
            # What the function knows by that name, where the loop knows something else by it.
            if name not in inner.names and not self._values.knows(name, function):
                inner.names[name] = self._values.add(name, function)
        self._read_within(inner, node, function)
        return True

    def _enter_defined(self, node: ast.expr, path: str, given: Sequence[Given]) -> None:
        """Reads a function that the loop itself defines, which is not there before that."""
        definition, around = self._defined[path]
        if definition in self._entered or len(self._entered) >= _DEPTH_MAX:
            return
        bound = self._bind(definition, NOBODY, given)
        names = {**around.names, **bound.names}
        inner = Room(
            around.source, self._values, names, definition, node, self._room, views=bound.views
        )
        self._read_within(inner, node, definition)

    def _read_within(self, inner: Room, node: ast.expr, entered: Any) -> None:
        assert inner.definition is not None  # noqa: S101  # for the type checker
        self.rooms[node] = inner
        room, self._room = self._room, inner
        hidden, self._hidden = self._hidden, set()
        self._entered.append(entered)
        body = inner.definition.body
        self.run_through(body if isinstance(body, list) else [body])
        self._entered.pop()
        self._room, self._hidden = room, hidden

    def _bind(self, definition: Definition, called: Called, given: Sequence[Given]) -> Bound:
        """Returns what a function's own names are outside, and notes arguments that are set."""
        bound = names_in(definition, called, given, self._room)
        self.followed.update(bound.followed)
        for path, node in bound.set:
            self._note(Verb.SET, path, node)
        return bound
