"""What a notebook shows of an error: the user's own lines that led to it, and what it says.

Whoever has to mend a call need not read how colabkit found out what is wrong with it. Nothing is
lost: ``%tb Plain`` shows all, and so does a program that is no notebook.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

_FOREIGN = (f"{Path(__file__).parents[1]}{os.sep}", f"{sysconfig.get_path('stdlib')}{os.sep}")
_JOINT = "\nThe error above led to this one:\n"


def shown(error: BaseException) -> list[str]:
    """Returns an error as IPython is to show it.

    Args:
        error: One that was raised. What it comes from is shown where lines of the user's own led
            there, as those of a model's ``forward``.
    """
    ipython: Any = sys.modules["IPython"]
    render = ipython.get_ipython().InteractiveTB
    if render.mode not in {"Context", "Minimal"}:  # somebody wants to see all
        return _rendered(render, error, error.__traceback__)
    lines: list[str] = []
    for each in reversed([*_chain(error)]):
        own = _of_user(each.__traceback__)
        if own is None and each is not error:
            continue
        lines += [_JOINT] if lines else []
        lines += _alone(render, each, own or each.__traceback__)
    return lines


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, what it comes from, and so on, as Python would show them."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _of_user(there: TracebackType | None) -> TracebackType | None:
    """Returns a traceback without the frames of colabkit and of what is installed."""
    steps = []
    while there is not None:
        steps.append(there)
        there = there.tb_next
    kept: TracebackType | None = None
    for step in reversed(steps):
        if not _is_foreign(step.tb_frame.f_code.co_filename):
            kept = TracebackType(kept, step.tb_frame, step.tb_lasti, step.tb_lineno)
    return kept


def _is_foreign(file: str) -> bool:
    is_cell = file.startswith("<ipython-input")  # as IPython 7 calls one
    return not is_cell and (file.startswith(("<", *_FOREIGN)) or "-packages/" in file)


def _alone(render: Any, error: BaseException, there: TracebackType | None) -> list[str]:
    """Returns an error without those that it comes from."""
    before = error.__cause__, error.__context__, error.__suppress_context__
    error.__cause__ = error.__context__ = None
    try:
        return _rendered(render, error, there)
    finally:
        error.__cause__, error.__context__, error.__suppress_context__ = before


def _rendered(render: Any, error: BaseException, there: TracebackType | None) -> list[str]:
    lines = render.structured_traceback(type(error), error, there, tb_offset=0)
    return [str(line) for line in lines]
