"""An interrupt that a lock of Python's answers with an error of its own is one all the same."""

from __future__ import annotations

import threading

import pytest

from colabkit.storage import interrupts_as_such


def test_a_second_interrupt_in_a_wait_is_an_interrupt():
    def wait() -> None:
        condition = threading.Condition(threading.Lock())
        with condition:
            try:
                raise KeyboardInterrupt("the first")
            finally:  # as Python's own wait, whose second interrupt comes before it has the lock
                condition.release()

    with pytest.raises(KeyboardInterrupt, match="the first"), interrupts_as_such():
        wait()


@pytest.mark.parametrize("before", [None, KeyboardInterrupt()])
def test_other_errors_are_themselves(before):
    def fail() -> None:
        try:
            if before is not None:
                raise before
        finally:
            raise RuntimeError("of the archive")

    with pytest.raises(RuntimeError, match="of the archive"), interrupts_as_such():
        fail()
