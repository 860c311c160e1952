"""Questions that a dead mount may never answer: it is a thread that hangs then, not the cell."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

Answer = TypeVar("Answer")


def asked(question: Callable[[], Answer], *, timeout_s: float | None = None) -> Answer:
    """Returns the answer to a question, which a thread asks; Ctrl-C ends the wait for it.

    A call into a mount that does not answer heeds no signal, so that the thread is left behind.

    Args:
        question: Looks at what may lie on a mount.
        timeout_s: How long to wait; without it, until there is an answer.

    Raises:
        TimeoutError: None came in time.
        BaseException: What the question raised.

    Example:
        >>> asked(lambda: 6 * 7)
        42
    """
    answers: list[Answer] = []
    failures: list[BaseException] = []
    has_ended = threading.Event()

    def ask() -> None:
        try:
            answers.append(question())
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            failures.append(error)
        finally:
            has_ended.set()

    threading.Thread(target=ask, name="colabkit-probe", daemon=True).start()
    if not has_ended.wait(timeout_s):
        message = f"no answer within {timeout_s} s"
        raise TimeoutError(message)
    if failures:
        raise failures[0]
    return answers[0]


@contextlib.contextmanager
def interrupts_as_such() -> Iterator[None]:
    """Raises the interrupt that Python's own locks answer otherwise.

    Where a second Ctrl-C meets a wait that the first one ends, its lock is released by who does
    not hold it, and that is a RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        before = error.__context__
        while before is not None and not isinstance(before, KeyboardInterrupt):
            before = before.__context__
        if before is None or "lock" not in str(error):
            raise
        raise before from None
