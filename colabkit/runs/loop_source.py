"""The source of a user's loop: its statement, what lies around it, and functions that it calls."""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import linecache
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

from colabkit.frameworks.users_own import is_of_package
from colabkit.parsing import tree_of

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.Module, ast.ClassDef)
_LOOPS = (ast.For, ast.While, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
_TIMED = "<timed exec>"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A module or cell.

    Attributes:
        tree: All of it.
        parents: What each node lies in.
    """

    tree: ast.Module
    parents: Mapping[ast.AST, ast.AST]

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yields what a node lies in, from within."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LoopSource:
    """A ``for`` statement over a run, or a loop that calls ``next`` on it.

    Attributes:
        loop: The statement.
        data: What gives its data: what it is over, or that call.
        source: What it stands in.
        scope: The statements of the function or cell around it.
        outermost: The loop around it that lies farthest out in that scope, or itself.
    """

    loop: ast.For | ast.While
    data: ast.expr
    source: Source
    scope: Sequence[ast.stmt]
    outermost: ast.stmt

    def following(self) -> list[ast.stmt]:
        """Returns the outermost loop, and the statements of the scope behind it."""
        ends = self.outermost.lineno
        return [each for each in self.scope if (each.end_lineno or each.lineno) >= ends]


def loop_at(frame: FrameType) -> LoopSource | None:
    """Returns the ``for`` statement at whose head a frame stands, or the loop that calls ``next``.

    None where it cannot be read; nor of a progress bar, which counts for the eye.
    """
    return None if is_installed(frame.f_code) else _loop_in(frame.f_code, frame.f_lasti)


class Called(NamedTuple):
    """A call that a function waits for.

    Attributes:
        source: What it stands in.
        call: The call.
        scope: The statements of the function or cell around it.
    """

    source: Source
    call: ast.Call
    scope: Sequence[ast.stmt]

    def following(self) -> list[ast.stmt]:
        """Returns the statement of the scope that the call is part of, and those behind it."""
        return [e for e in self.scope if (e.end_lineno or e.lineno) >= self.call.lineno]


def call_at(frame: FrameType) -> Called | None:
    """Returns the call that a frame waits for."""
    source, at = _source_of(frame.f_code), _position(frame.f_code, frame.f_lasti)
    if source is None or is_installed(frame.f_code):
        return None
    call = _call_at(source, ((at[0], at[2]), (at[1], at[3])))
    around = source.around(call) if call is not None else ()
    scope: Any = next((e for e in around if isinstance(e, _SCOPES)), None)
    return None if call is None or scope is None else Called(source, call, scope.body)


def stands_in_loop(frame: FrameType | None) -> bool:
    """Whether a loop of the user's calls what a frame runs, be it through functions of theirs."""
    while frame is not None and not is_installed(frame.f_code):
        if _is_in_loop(frame.f_code, frame.f_lasti):
            return True
        frame = frame.f_back
    return False


def _is_in_loop(code: CodeType, offset: int) -> bool:
    source, at = _source_of(code), _position(code, offset)
    if source is None or at[0] is None:
        return False
    here = (at[0], at[2] or 0)
    for each in ast.walk(source.tree):
        if isinstance(each, _LOOPS) and each.lineno >= code.co_firstlineno:
            first = each.body[0] if isinstance(each, ast.For | ast.While) else each
            if _place(first)[0] <= here < _place(each)[1]:
                return True
    return False


def _position(code: CodeType, offset: int) -> tuple[int | None, ...]:
    return next(itertools.islice(code.co_positions(), offset // 2, None), (None,) * 4)


def is_installed(code: CodeType) -> bool:
    """Whether it comes with a package, and is none of the user's own."""
    return code.co_filename.startswith("<frozen") or is_of_package(code.co_filename)


@functools.lru_cache(maxsize=32)  # each epoch asks again
def _loop_in(code: CodeType, offset: int) -> LoopSource | None:
    source = _source_of(code)
    at = _position(code, offset)
    if source is None or None in at:
        return None
    # Python 3.13 names the place of what is looped over, older ones that of the statement.
    span = (at[0], at[2]), (at[1], at[3])
    loops = (each for each in ast.walk(source.tree) if isinstance(each, ast.For))
    loop: Any = next((e for e in loops if span in {_place(e), _place(e.iter)}), None)
    data = loop.iter if loop is not None else _call_at(source, span)
    if data is None:
        return None
    outermost = loop
    for each in source.around(loop or data):
        if isinstance(each, _SCOPES):
            body: Any = each.body
            return None if loop is None else LoopSource(loop, data, source, body, outermost)
        if isinstance(each, ast.For | ast.While):
            loop, outermost = loop or each, each
    return None


def _call_at(source: Source, span: Any) -> ast.Call | None:
    calls = (each for each in ast.walk(source.tree) if isinstance(each, ast.Call))
    return next((each for each in calls if _place(each) == span), None)


def function_at(function: FunctionType) -> tuple[Source, Definition] | None:
    """Returns the definition of a function of the user's; None of any other."""
    return None if is_installed(function.__code__) else _function_in(function.__code__)


@functools.lru_cache(maxsize=256)
def _function_in(code: CodeType) -> tuple[Source, Definition] | None:
    source = _source_of(code)
    if source is None:
        return None
    if code.co_name == "<lambda>":
        found = _lambda_in(code, source)
        return None if found is None else (source, found)
    for each in ast.walk(source.tree):
        if isinstance(each, _FUNCTIONS) and each.name == code.co_name:
            first = min([each.lineno, *(d.lineno for d in each.decorator_list)])
            if first == code.co_firstlineno:
                return source, each
    return None


def _lambda_in(code: CodeType, source: Source) -> ast.Lambda | None:
    """Returns the innermost one in whose body all of a code stands."""
    places = {((p[0], p[2]), (p[1], p[3])) for p in code.co_positions() if p[0] and p[3]}
    every = [each for each in ast.walk(source.tree) if isinstance(each, ast.Lambda)]
    bodies = [(_place(each.body), each) for each in every]
    around = [
        (begin, each)
        for (begin, end), each in bodies
        if places and all(begin <= first and last <= end for first, last in places)
    ]
    return max(around, key=lambda found: found[0])[1] if around else None


def _source_of(code: CodeType) -> Source | None:
    text = "".join(linecache.getlines(code.co_filename))
    if code.co_filename == _TIMED:
        text = _timed_cell()
    return _parsed(text) if text else None


@functools.lru_cache(maxsize=16)
def _parsed(text: str) -> Source | None:
    tree = tree_of(text)
    if tree is None:
        return None
    parents = {child: each for each in ast.walk(tree) for child in ast.iter_child_nodes(each)}
    return Source(tree, parents)


def _timed_cell() -> str:
    """Returns the newest cell without its ``%%time``: IPython keeps no source of that."""
    cells: Any = vars(sys.modules["__main__"]).get("In")
    magic = _parsed(cells[-1]) if isinstance(cells, list) and cells else None
    call = magic.tree.body[0] if magic is not None and magic.tree.body else None
    if not isinstance(call, ast.Expr) or not isinstance(call.value, ast.Call):
        return ""
    text = call.value.args[-1] if call.value.args else None
    is_text = isinstance(text, ast.Constant) and isinstance(text.value, str)
    return str(text.value) if is_text else ""  # type: ignore[union-attr]


def _place(node: ast.stmt | ast.expr) -> tuple[Any, Any]:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
