"""What a turn of a loop has set for certain, whichever way its statements are run through."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from colabkit.runs.loop_paths import prefixes_of, within
from colabkit.runs.loop_syntax import verb_of
from colabkit.runs.loop_writes import Verb

# Stands for whatever has set a variable, where nobody can tell.
_UNKNOWN = ast.Pass()
_STOPPING = frozenset({"KeyboardInterrupt", "SystemExit"})
_CUT_SHORT = frozenset({"raises", "suppress"})


@dataclasses.dataclass(slots=True)
class Way:
    """What is known where a turn has come to.

    Attributes:
        is_set: The paths that have been set, whatever has happened, and where that may have been.
        changed: Those that may have been changed since they were last set.
    """

    is_set: dict[str, frozenset[ast.AST]] = dataclasses.field(default_factory=dict)
    changed: set[str] = dataclasses.field(default_factory=set)

    def has_set(self, path: str) -> bool:
        """Whether a variable, or what it is a part of, has been set."""
        return any(each in self.is_set for each in prefixes_of(path))

    def setters_of(self, path: str) -> frozenset[ast.AST]:
        """Returns where a variable, or what it is a part of, may have been set last."""
        return frozenset().union(*(self.is_set.get(each, ()) for each in prefixes_of(path)))


def _joined(*ways: Way | None) -> Way | None:
    """Returns what is known where ways meet, None where nothing comes."""
    met = [each for each in ways if each is not None]
    if not met:
        return None
    in_all = set.intersection(*({*each.is_set} for each in met))
    is_set = {path: frozenset().union(*(each.is_set[path] for each in met)) for path in in_all}
    return Way(is_set, set().union(*(each.changed for each in met)))


def _between(begun: Way | None, end: Way | None) -> Way | None:
    """Returns what is known where statements may have been left anywhere."""
    if begun is None or end is None:
        return _joined(begun, end)
    met = Way({**begun.is_set}, begun.changed | end.changed)
    for path, setters in begun.is_set.items():
        if end.is_set.get(path) != setters:
            met.is_set[path] = setters | {_UNKNOWN}
    return met


@dataclasses.dataclass(slots=True)
class _Target:
    """Where statements lead that leave a loop, or a function where it is none."""

    is_loop: bool
    ends: list[Way | None] = dataclasses.field(default_factory=list)
    goes_on: list[Way | None] = dataclasses.field(default_factory=list)


class Ways(ast.NodeVisitor):
    """Follows the ways through the turns of the first loop that is read.

    Attributes:
        read_first: The paths that some way reads or changes before it has set them.
    """

    def __init__(self) -> None:
        self._way: Way | None = Way()
        self._targets: list[_Target] = []
        self._turn: Way | None = None
        self.read_first: set[str] = set()
        # By node and path: reads behind what sets it in the same turn, and all others.
        self._settled: set[tuple[ast.AST, str]] = set()
        self._open: set[tuple[ast.AST, str]] = set()
        # Of the former, where what they read may have been set.
        self._setters: dict[tuple[ast.AST, str], frozenset[ast.AST]] = {}
        self._reads: list[tuple[ast.AST, str]] = []

    def read(self, statements: Sequence[ast.AST]) -> Ways:
        raise NotImplementedError

    def may_leave(self, path: str) -> bool:
        """Whether a turn may leave a variable as one before it has set it."""
        return self._turn is not None and not self._turn.has_set(path)

    def settled(self, path: str) -> set[ast.AST]:
        """Returns where a variable is read only as the same turn has set it."""
        return {node for node, read in self._settled - self._open if within(read, path)}

    def may_see(self, node: ast.AST, path: str, setter: ast.AST) -> bool:
        """Whether a variable that is read at a node may be what was set at another."""
        setters = self._setters.get((node, path), frozenset({_UNKNOWN}))
        return (node, path) in self._open or not setters.isdisjoint({setter, _UNKNOWN})

    def sets_last(self, path: str) -> bool:
        """Whether a variable is set behind all that changes it."""
        return self._turn is None or path not in self._turn.changed

    def go_by(self, verb: Verb, path: str, node: ast.AST) -> None:
        """Takes down that a variable is read, set or changed where the turn has come to."""
        if (way := self._way) is None:
            return
        if verb is Verb.READ and not way.has_set(path):
            self._open.add((node, path))
        elif verb is Verb.READ:
            self._settled.add((node, path))
            before = self._setters.get((node, path), frozenset())
            self._setters[node, path] = before | way.setters_of(path)
            self._reads.append((node, path))
        # Whose attribute is set is read itself.
        used = prefixes_of(path)[: -1 if verb is Verb.SET else None]
        is_set = next((n for n, each in enumerate(used) if each in way.is_set), len(used))
        self.read_first.update(used[:is_set])
        if verb is Verb.SET:
            way.is_set[path] = frozenset({node})
            way.changed.discard(path)
        elif verb is Verb.CHANGE:
            way.changed.add(path)

    def either(self, *ways: Sequence[ast.AST]) -> None:
        """Reads what is run in place of each other."""
        begun, ends = self._way, []
        for nodes in ways:
            self._way = _joined(begun)
            self.read(nodes)
            ends.append(self._way)
        self._way = _joined(*ends)

    @contextlib.contextmanager
    def maybe(self) -> Iterator[None]:
        """Takes what is read meanwhile for what may be run, or not."""
        before = _joined(self._way)
        yield
        self._way = _joined(self._way, before)

    @contextlib.contextmanager
    def given_away(self) -> Iterator[None]:
        """Takes what is read meanwhile for what something else is given, and may never call."""
        begun = _joined(self._way)
        yield
        if begun is None or self._way is None:
            return
        for path, setters in self._way.is_set.items():
            if begun.is_set.get(path) != setters:
                self._way.is_set[path] = setters | {_UNKNOWN}

    def turns(self, nodes: Sequence[ast.AST], *, is_run: bool, is_endless: bool = False) -> None:
        """Reads what a loop does in a turn.

        Args:
            nodes: That.
            is_run: Whether it has at least one turn.
            is_endless: Whether only what leaves it ends it.
        """
        is_first = not self._targets
        begun, first_read = _joined(self._way), len(self._reads)
        if is_first:
            self._way = Way()
        self._targets.append(_Target(is_loop=True))
        self.read(nodes)
        target = self._targets.pop()
        turn = _joined(self._way, *target.goes_on)
        if is_first:
            self._turn = _joined(self._turn, turn, *target.ends)
        elif begun is not None and turn is not None:
            self._go_round(self._reads[first_read:], begun, turn)
        self._way = _joined(
            *target.ends, *([] if is_endless else [turn, None if is_run else begun])
        )

    def _go_round(self, reads: Sequence[tuple[ast.AST, str]], begun: Way, turn: Way) -> None:
        """Has what a turn began with be what the one before it has left as well."""
        for node, path in reads:
            if not self._setters[node, path].isdisjoint(begun.setters_of(path)):
                self._setters[node, path] |= turn.setters_of(path)

    def run_through(self, statements: Sequence[ast.AST]) -> None:
        """Reads the statements of a function that is called."""
        self._targets.append(_Target(is_loop=False))
        self.read(statements)
        self._way = _joined(self._way, *self._targets.pop().ends)

    def _leave(self, *, is_loop: bool, goes_on: bool = False) -> None:
        target = next((e for e in reversed(self._targets) if e.is_loop is is_loop), None)
        if target is not None:
            (target.goes_on if goes_on else target.ends).append(self._way)
        self._way = None

    def visit_Break(self, node: ast.Break) -> None:  # noqa: ARG002
        self._leave(is_loop=True)

    def visit_Continue(self, node: ast.Continue) -> None:  # noqa: ARG002
        self._leave(is_loop=True, goes_on=True)

    def visit_Return(self, node: ast.Return) -> None:
        self.generic_visit(node)
        self._leave(is_loop=False)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.generic_visit(node)
        self._way = None

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        self.either(node.body, node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        self.either([node.body], [node.orelse])

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        for each in node.values[1:]:
            with self.maybe():
                self.visit(each)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        cases = [[*filter(None, [e.pattern, e.guard]), *e.body] for e in node.cases]
        self.either(*cases, *([] if _takes_all(node.cases[-1]) else [[]]))

    def visit_Try(self, node: ast.Try) -> None:
        begun = _joined(self._way)
        self.read([*node.body, *node.orelse])
        raised, ends = _between(begun, self._way) if begun else None, [self._way]
        for each in node.handlers:
            self._way = _joined(raised)
            self.read([*filter(None, [each.type]), *each.body])
            # Where a person has stopped it, no turn follows.
            is_stop = each.type is not None and not _STOPPING.isdisjoint(_names_in(each.type))
            ends += [] if is_stop else [self._way]
        end = _joined(*ends)
        self._way = end or raised
        self.read(node.finalbody)
        self._way = end and self._way

    def visit_With(self, node: ast.With) -> None:
        self.read(node.items)
        calls = (e.context_expr for e in node.items if isinstance(e.context_expr, ast.Call))
        begun = _joined(self._way)
        self.read(node.body)
        if not _CUT_SHORT.isdisjoint(map(verb_of, calls)):
            self._way = _joined(self._way, _between(begun, self._way))


def _takes_all(case: ast.match_case) -> bool:
    is_name = isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None
    return is_name and case.guard is None


def _names_in(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
