"""The compiled step of Keras on JAX: counted, and stood in for where an epoch's rest is empty."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class CountedSteps:
    """A model's train function.

    Keras reads what the last step of an epoch has returned, so that there must be one: where the
    data gives none, because a resume finds the epoch complete, the state is handed back as it is.

    Attributes:
        steps_taken: By the newest execution; 0 where the data had ended.
    """

    def __init__(self, train_function: Any) -> None:
        self.steps_taken = 0
        self.has_returned = False
        self._train_function = train_function

    def __call__(self, state: Any, iterator: Any) -> Any:
        """Takes the steps of one execution."""
        counted = _Counted(iterator)
        try:
            found = self._train_function(state, counted)
        except StopIteration:
            if self.has_returned:
                raise
            found = {}, state
        self.has_returned, self.steps_taken = True, counted.count
        return found


class _Counted:
    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        batch = next(self._iterator)
        self.count += 1
        return batch


@contextlib.contextmanager
def steps_counted(model: Any) -> Iterator[None]:
    """Has a model's steps counted."""
    model.make_train_function()
    inner = model.train_function
    model.train_function = CountedSteps(inner)
    try:
        yield
    finally:
        model.train_function = inner
