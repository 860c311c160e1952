"""Statements with names of their own, and what a call in them does, and to what."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from types import BuiltinMethodType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, NamedTuple

from colabkit.frameworks.bystanders import is_cached, unwrapped
from colabkit.runs.loop_paths import key_of, path_of, root_of
from colabkit.runs.loop_source import Definition, Source, function_at
from colabkit.runs.loop_syntax import (
    attribute_asked,
    declared,
    is_namespace,
    is_super,
    owner_in,
    set_at,
    verb_of,
)
from colabkit.runs.loop_values import Values, is_array, is_table

SETTING = frozenset({"__setattr__", "setattr"})
_PASSES = frozenset({"batches", "items"})
# What shows an array or table, or a part of it, and writes into it.
_VIEWS = frozenset({"H", "T", "at", "data", "flat", "iat", "iloc", "imag", "loc", "mT", "real"})
_HALVES = frozenset({"imag", "real"})
_GIVING_VIEWS = frozenset({
    "detach", "diagonal", "flatten", "narrow", "numpy", "permute", "ravel", "reshape", "select",
    "squeeze", "swapaxes", "t", "transpose", "unsqueeze", "view",
})  # fmt: skip
# What stands in these may be run when more of a turn is done, or bit by bit.
_LATER = (ast.AsyncFor, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.ListComp, ast.SetComp)


class View(NamedTuple):
    """That a name stands for an array that has a name of its own, or for a part of it.

    Attributes:
        path: That.
        is_part: Whether it may be but a part of it.
    """

    path: str
    is_part: bool


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Statements that are run with names of their own.

    Attributes:
        source: Where they stand.
        values: What the loop's names stand for.
        names: What their names are outside, by name; all others are alike.
        views: The names that stand for an array or a part of it by now: ``row = bank[2:4]``.
        definition: The function whose they are; None for the loop itself.
        call: The call, or the property that is read, which runs them; None for the loop itself.
        outer: Where that stands.
        remembers: The path of the function where it is run once for each question.
        kind: The class in which it stands.
    """

    source: Source
    values: Values
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    definition: Definition | None = None
    call: ast.expr | None = None
    outer: Room | None = None
    remembers: str | None = None
    kind: type | None = None
    views: dict[str, View] = dataclasses.field(default_factory=dict)

    def is_run_later(self, node: ast.AST) -> bool:
        """Whether a node may be run when more of the turn is done, or bit by bit."""
        if any(isinstance(each, _LATER) for each in self.source.around(node)):
            return True
        if self.call is None or self.outer is None:
            return False
        body = () if self.definition is None else ast.walk(self.definition)
        is_at_once = isinstance(self.call, ast.Call)
        is_at_once &= not any(isinstance(each, ast.Yield | ast.YieldFrom) for each in body)
        return not is_at_once or self.outer.is_run_later(self.call)

    def path(self, node: ast.AST) -> str | None:
        """Returns the path that a node names, as the loop knows it."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            inner = self.path(node.value)
            return None if inner is None else self.values.attribute(inner, node.attr)
        found = None
        if isinstance(node, ast.Subscript):
            if (named := self._by_name(node)) is not None:
                return self.path(named)
            if (whole := self.path(node.value)) is not None:
                found = whole + key_of(node.slice)
        elif is_super(node):
            return self.receiver()
        elif (asked := attribute_asked(node)) is not None:
            return self.path(asked)
        elif isinstance(node, ast.Call) and not (node.args or node.keywords):
            found = self._given_back_by(node.func)
        if found is None:
            return None
        is_there = self.values.is_object(found) or self.values.is_answer(found)
        return found if is_there else None

    def written(self, node: ast.expr) -> str | None:
        """Returns the path of what a write into a part or a view changes: ``bank.data[0]``."""
        node = self._written_node(node)
        if isinstance(node, ast.Name) and node.id in self.views:
            return self.views[node.id].path
        part = node.func if isinstance(node, ast.Call) else node
        views = _VIEWS if part is node else _GIVING_VIEWS
        if isinstance(part, ast.Attribute) and part.attr in views:
            whole = self.written(part.value)
            value = None if whole is None else self.values.of(whole)
            if is_array(value) or is_table(value):
                return whole
        return self.path(node)

    def _written_node(self, node: ast.expr) -> ast.expr:
        """Returns what is written into by an index: of a tuple, which cannot be, an item."""
        while isinstance(node, ast.Subscript | ast.Starred):
            if isinstance(self.values.of(self.path(node.value) or ""), tuple) and self.path(node):
                break
            node = node.value
        return node

    def is_whole(self, node: ast.expr | None) -> bool:
        """Whether a node names a variable, and is not known to be but a part of one."""
        if isinstance(node, ast.Name) and node.id in self.views:
            return not self.views[node.id].is_part
        is_half = isinstance(node, ast.Attribute) and node.attr in _HALVES
        return node is not None and path_of(node) is not None and not is_half

    def viewed(self, node: ast.expr) -> View | None:
        """Returns the array that a node is, or is a part of, and no copy."""
        part = node
        while isinstance(part, ast.Subscript) and _gives_view(part.slice):
            part = part.value
        whole = self.written(part)
        if whole is None or isinstance(part, ast.Subscript):
            return None
        # JAX's and TensorFlow's never change: what is added to makes another.
        value = self.values.of(whole)
        if not (is_array(value) and hasattr(type(value), "__iadd__")):
            return None
        return View(whole, is_part=part is not node or not self.is_whole(node))

    def _by_name(self, node: ast.Subscript) -> ast.expr | None:
        """Returns what ``globals()["best"]`` and ``vars(self)["best"]`` are: ``best``."""
        key, space = node.slice, node.value
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            return None
        if not is_namespace(space):
            return None
        owner = owner_in(space)
        if owner is None:
            return ast.Name(key.value, node.ctx)
        return ast.Attribute(owner, key.value, node.ctx)

    def receiver(self) -> str | None:
        """Returns the path of the object whose method the function is, as far as it has one."""
        if self.definition is None or self.kind is None:
            return None
        arguments = [*self.definition.args.posonlyargs, *self.definition.args.args]
        return self.names.get(arguments[0].arg) if arguments else None

    def _given_back_by(self, function: ast.expr) -> str | None:
        """Returns the path of what a call without arguments gives, where it does no more."""
        path = self.path(function)
        value = None if path is None else self.values.of(path)
        if path is None or value is None:
            return None
        if not isinstance(value, FunctionType):
            return "".join([path, "()"])
        found = function_at(value)
        body = [] if found is None else _statements_of(found[1])
        given = getattr(body[0], "value", body[0]) if len(body) == 1 else None
        inner = None if given is None else _plain_path(given)
        if inner is None or root_of(inner) in value.__code__.co_varnames:
            return None
        name = root_of(inner)
        known = name if self.values.knows(name, value) else self.values.add(name, value)
        return known + inner[len(name) :]

    def statements(self) -> list[ast.stmt]:
        """Returns those of the function, where it is more than an expression."""
        if isinstance(self.definition, ast.Lambda):
            return [ast.Expr(self.definition.body)]
        return [] if self.definition is None else self.definition.body

    def is_own(self, path: str) -> bool:
        """Whether a path is a variable of the function's own, or in one."""
        return root_of(path).startswith(f"{_title_of(self.definition)}:")

    def is_definition(self, node: ast.AST) -> bool:
        """Whether a node is the function that was called."""
        return node is self.definition


def _gives_view(index: ast.expr) -> bool:
    """Whether an index takes a part as it lies: ``[2:4]``, ``[:, 0]``; another array takes a copy.

    A number alone may take a number.
    """
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    has_slice = any(isinstance(each, ast.Slice) for each in parts)
    return has_slice and all(isinstance(each, ast.Slice | ast.Constant) for each in parts)


def _statements_of(definition: Definition) -> list[ast.AST]:
    if isinstance(definition, ast.Lambda):
        return [definition.body]
    is_text = [isinstance(getattr(each, "value", None), ast.Constant) for each in definition.body]
    rest = definition.body[1:] if is_text[0] else definition.body
    return [each for each in rest if isinstance(each, ast.Return)] if len(rest) == 1 else []


def _plain_path(node: ast.AST) -> str | None:
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else None


class Given(NamedTuple):
    """An argument; of ``functools.partial`` one without a node."""

    node: ast.expr | None
    path: str | None
    keyword: str | None = None


class Done(NamedTuple):
    """What a call does.

    Attributes:
        verb: The name of the function or method.
        path: What it is done to; None for a function.
        given: What else it is given.
        function: The path of the function.
        is_bound: Whether it is a method that a variable holds.
        behind: The class whose bases the method is one of: it is called of ``super()``.
    """

    verb: str
    path: str | None
    given: list[Given]
    function: str | None
    is_bound: bool = False
    behind: type | None = None

    def sets(self) -> str | None:
        """Returns the attribute that ``setattr`` sets."""
        given = [*self.given] if self.path is None else [Given(None, self.path), *self.given]
        name = given[1].node if self.verb in SETTING and len(given) > 1 else None
        if not isinstance(name, ast.Constant) or given[0].path is None:
            return None
        return f"{given[0].path}.{name.value!s}"


def done_by(node: ast.Call, room: Room) -> Done:
    """Returns what a call does: ``list.append(rows, x)`` what ``rows.append(x)`` does."""
    given = [Given(each, room.written(each)) for each in node.args]
    given += [Given(e.value, room.written(e.value), e.arg or "**") for e in node.keywords]
    receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
    path = None if receiver is None else room.written(receiver)
    verb, function = verb_of(node), room.path(node.func)
    value = None if function is None else room.values.of(function)
    while function is not None and isinstance(value, functools.partial):
        given = [*(Given(None, f"{function}.args[{n}]") for n in range(len(value.args))), *given]
        given += [Given(None, f"{function}.keywords[{name!r}]", name) for name in value.keywords]
        function, value = function + ".func", value.func
    if isinstance(value, BuiltinMethodType | MethodWrapperType):
        verb = value.__name__
        if not isinstance(value.__self__, ModuleType | type | None):
            path = room.values.plain_name(str(function) + ".__self__")
            return Done(verb, path, given, function, is_bound=True)
    kind = None if path is None else room.values.of(path)
    if path is not None and not room.values.has(path):
        kind = vars(builtins).get(path)
    if isinstance(kind, type) and given and given[0].path is not None:
        is_one = issubclass(type(room.values.of(given[0].path)), kind)
        if is_one and not isinstance(value, FunctionType):
            return Done(verb, given[0].path, given[1:], function, is_bound=True)
    behind = room.kind if receiver is not None and is_super(receiver) else None
    return Done(verb, path, given, function, behind=behind)


def called_by(done: Done, room: Room) -> Called:
    """Returns the function of the user's that a call runs."""
    path, values = done.function, room.values
    if path is None:
        return NOBODY
    value = values.of(path)
    receiver, _, name = path.rpartition(".")
    if done.behind is None and isinstance(value, staticmethod | classmethod):
        owner = values.of(receiver)
        return method_of(owner if isinstance(owner, type) else type(owner), name, receiver, path)
    remembers = path if is_cached(value) else None
    value = unwrapped(value)
    if done.behind is None and isinstance(value, FunctionType):
        return Called(value, None, remembers)
    if isinstance(value, MethodType) and isinstance(value.__func__, FunctionType):
        return Called(value.__func__, f"{path}.__self__", kind=type(value.__self__))
    if (value is not None and done.behind is None) or not receiver:
        receiver, name = path, "__call__"
    owner = values.of(receiver)
    if isinstance(owner, ModuleType) or values.is_held(receiver):
        return NOBODY
    kind = owner if isinstance(owner, type) and name != "__call__" else type(owner)
    return method_of(kind, name, receiver, path, behind=done.behind)


def method_of(
    kind: type, name: str, receiver: str, path: str, behind: type | None = None
) -> Called:
    """Returns the method of the user's that an object has by a name.

    Args:
        kind: Its class.
        name: The name.
        receiver: The path of the object, or of the class.
        path: That of the method.
        behind: The class whose bases alone are looked at.
    """
    order = kind.__mro__
    order = order[order.index(behind) + 1 :] if behind in order else order
    owner = next((each for each in order if name in vars(each)), kind)
    method = vars(owner).get(name)
    is_of_class = isinstance(method, classmethod)
    if isinstance(method, staticmethod | classmethod):
        method, receiver = method.__func__, receiver if is_of_class else ""
    remembers = path if is_cached(method) else None
    method = unwrapped(method)
    if not isinstance(method, FunctionType):
        return NOBODY
    return Called(method, receiver or None, remembers, owner)


class Called(NamedTuple):
    """A function of the user's that a call runs.

    Attributes:
        function: It.
        receiver: The path of the object whose method it is.
        remembers: Its path where it gives what it gave before.
        kind: The class in which it stands.
    """

    function: Any  # a FunctionType would be taken for a method
    receiver: str | None
    remembers: str | None = None
    kind: type | None = None


NOBODY = Called(None, None)


def _title_of(definition: Definition | None) -> str:
    return str(getattr(definition, "name", "<lambda>"))


class Bound(NamedTuple):
    """What a function's own names are at a call.

    Attributes:
        names: What they are outside, by name.
        missing: Those of arguments that are not given.
        followed: The arguments that are what they are outside.
        set: The paths of those that are not, each with what they are set to.
        views: Of which array they are a part at first, or all.
    """

    names: dict[str, str]
    missing: set[str]
    followed: list[ast.AST]
    set: list[tuple[str, ast.expr]]
    views: dict[str, View]


def names_in(definition: Definition, called: Called, given: Sequence[Given], room: Room) -> Bound:
    """Returns what a function's own names are at a call that stands in a room."""
    arguments = [e.arg for e in (*definition.args.posonlyargs, *definition.args.args)]
    others = [*definition.args.kwonlyargs, definition.args.vararg, definition.args.kwarg]
    outer_names, set_within = _outer_and_set(definition)
    own = {*set_within, *arguments, *(each.arg for each in others if each is not None)}
    title = _title_of(definition)
    names = {name: f"{title}:{name}" for name in own - outer_names}
    if called.receiver is not None and arguments:
        names[arguments.pop(0)] = called.receiver
    in_place = [each for each in given if each.keyword is None]
    # Which arguments stand behind a starred one, nobody can tell.
    in_place = [*itertools.takewhile(lambda e: not isinstance(e.node, ast.Starred), in_place)]
    passed = [*zip(arguments, in_place, strict=False)]
    passed += [(each.keyword, each) for each in given if each.keyword is not None]
    bound = Bound(names, names.keys() - set_within - {name for name, _ in passed}, [], [], {})
    for name, each in passed:
        path = each.path if each.node is None else room.path(each.node)
        if name in own and path is not None and name not in set_within:
            names[name] = path
            bound.followed.extend(filter(None, [each.node]))
        elif name in names and each.node is not None:
            bound.set.append((names[name], each.node))
            if (viewed := room.viewed(each.node)) is not None:
                bound.views[name] = viewed
    return bound


@functools.lru_cache(maxsize=256)  # it is read once for each call
def _outer_and_set(definition: Definition) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the names that a function declares to be outer ones, and those that it sets."""
    nodes = [*ast.walk(definition)]
    outer = frozenset(name for each in nodes for name in declared(each))
    return outer, frozenset(name for each in nodes for name in set_at(each))


@functools.lru_cache(maxsize=256)
def names_within(definition: Definition) -> frozenset[str]:
    """Returns all names that a function's definition names."""
    return frozenset(each.id for each in ast.walk(definition) if isinstance(each, ast.Name))


def some_of(space: ast.expr, room: Room) -> list[str]:
    """Returns the paths of what lies in a namespace, or is an attribute of an object."""
    owner = owner_in(space) if is_namespace(space) else space
    whose = "" if owner is None else room.path(owner)
    return [] if whose is None else room.values.parts(whose)


def begins_pass(over: ast.expr, room: Room) -> bool:
    """Whether a loop is over a run's data."""
    return any(map(functools.partial(_is_pass, room=room), ast.walk(over)))


def _is_pass(node: ast.AST, room: Room) -> bool:
    if not (isinstance(node, ast.Attribute) and node.attr in _PASSES):
        return False
    path = room.path(node.value)
    return path is not None and room.values.is_run(path)
