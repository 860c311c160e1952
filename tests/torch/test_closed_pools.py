"""What objects of compiled code take up is named where steps go by it: they show nothing of it."""

from __future__ import annotations

import array
import queue
from collections.abc import Callable
from typing import Any

import pytest

from tests.torch.steered import named_in, run_of


def a_queue(run: Any, step: Any) -> None:
    rows: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in run.items(range(3)):
        rows.put(number)
        step(rows.qsize())


def an_array(run: Any, step: Any) -> None:
    rows = array.array("d")
    for number in run.items(range(3)):
        rows.append(number)
        step(len(rows))


def bytes_one_by_one(run: Any, step: Any) -> None:
    rows = bytearray()
    for number in run.items(range(3)):
        rows.append(number)
        step(len(rows))


def a_queue_for_the_eye(run: Any, step: Any) -> None:
    rows: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in run.items(range(3)):
        rows.put(number)
        print(rows.qsize())
        step(1)


NAMED: tuple[Callable[[Any, Any], None], ...] = (a_queue, an_array, bytes_one_by_one)


@pytest.mark.parametrize("loop", [*NAMED, a_queue_for_the_eye])
def test_what_they_take_up_is_named_where_steps_go_by_it(loop: Any, tmp_path: Any) -> None:
    assert named_in(run_of(loop, tmp_path)) == ({"rows"} if loop in NAMED else set())
