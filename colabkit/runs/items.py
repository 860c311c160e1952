"""Any long loop over items, made to go on at the item where it stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from colabkit.frameworks.base import Start


class ItemsFeed:
    """Items in their own order; a sequence is entered by index, anything else is read again."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self._by_index = isinstance(items, Sequence)
        self.length: int | None = len(items) if isinstance(items, Sequence) else None

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the items from ``start.skip`` on."""
        if isinstance(self._items, Sequence):
            return (self._items[i] for i in range(start.skip, len(self._items)))
        return self._read_again(start)

    def _read_again(self, start: Start) -> Iterator[Any]:
        items = iter(self._items)
        for number, _ in enumerate(itertools.islice(items, start.skip), 1):
            start.passed(number)
        # Not ``yield from``: a generator that a loop leaves would be closed with it.
        for item in items:  # noqa: UP028
            yield item

    def state(self) -> object:
        """The count of items says it all."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """The number of items, where it is known."""
        return {"items": self.length}

    def reasons(self) -> tuple[str, ...]:
        """Nothing stands against exactness."""
        return ()

    def notices(self) -> tuple[str, ...]:
        """What must hold for items that are read again."""
        if self._by_index:
            return ()
        return ("the items must come in the same order again",)
