"""The generators of data, seeded by their place: also those that it makes as it is asked."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable
from typing import Any

from colabkit.frameworks.generators import (
    ITEMS_WITH_GENERATORS_MAX,
    Holder,
    find_generators_in_data,
    is_unseedable,
    may_hold_generator,
    reseed,
    search_in_data,
)
from colabkit.frameworks.seeding import derive

# One that the data makes as it is asked has drawn from a place of its own: it is asked again.
TRIES_MAX = 3
MADE_LATE = (
    "the iterable makes random generators as it is read, which a resume in a later pass makes anew"
    " (make them before)"
)
TOO_MANY = (
    f"the data keeps more than {ITEMS_WITH_GENERATORS_MAX:,} items with random generators of their"
    " own in one container, which a resume does not put back (make one from the index and the epoch"
    " where a sample is made)"
)
_Place = tuple[int, str]
_made_late: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


class OwnGenerators:
    """The random generators that a user keeps in a dataset or its transforms.

    Args:
        roots: A dataset, its collate function.
        kinds: The framework's own generator classes, besides random's and NumPy's.
        put: Seeds a generator of any of them.
    """

    def __init__(
        self,
        *roots: object,
        kinds: tuple[type, ...] = (),
        put: Callable[[Any, int], None] = reseed,
    ) -> None:
        self._roots, self._kinds, self._put = roots, kinds, put
        self._holders: list[Holder] = []
        self._is_searched = self._leaves_some = False
        self._found: dict[_Place, object] = {}
        self._keys: dict[_Place, int | str] = {}

    def reseed(self, seed: int) -> None:
        """Seeds each of them by its place."""
        self._look()
        for place, generator in self._found.items():
            self._put(generator, derive(seed, self._keys[place]))

    def have_come(self) -> bool:
        """Whether the data has made some since they were seeded, beside those that it had."""
        before = self._found.keys()
        self._look()
        return before < self._found.keys()

    @property
    def found(self) -> list[object]:
        """Those that were there when it last looked."""
        return list(self._found.values())

    def leave_some(self) -> bool:
        """Whether there are more than are seeded."""
        self._look()
        return self._leaves_some

    def unseedable(self) -> bool:
        """Whether one of them draws from the operating system."""
        return any(
            is_unseedable(g) for root in self._roots for g in find_generators_in_data(root, ())
        )

    def _look(self) -> None:
        is_first, self._is_searched = not self._is_searched, True
        if not is_first and not _any_sees_more(self._holders, self._kinds):
            return
        searches = [search_in_data(root, self._kinds) for root in self._roots]
        self._holders = [each for search in searches for each in search.holders]
        self._leaves_some = any(search.leaves_some for search in searches)
        numbered = enumerate(searches)
        self._found = {(n, way): each for n, of in numbered for way, each in of.found.items()}
        for number, way in self._found:
            late = _late_in(self._roots[number])
            if not is_first and (number, way) not in self._keys:
                late.add(way)
            # A resume may find none of those that are made late, and counts the others alone.
            key = way if way in late else len(self._keys)
            self._keys.setdefault((number, way), key)


def _late_in(root: Any) -> set[str]:
    """Returns the ways to those that a root had not when it was first searched."""
    try:
        return _made_late.setdefault(root, set())
    except TypeError:  # a list, say, to which there are no weak references
        return set()


def makes_some_late(root: object) -> bool:
    """Whether an object has made generators while it was read."""
    return bool(_late_in(root))


def _any_sees_more(holders: list[Holder], kinds: tuple[type, ...]) -> bool:
    # All of them, for each notes what has come.
    return sum(_sees_more(each, kinds) for each in holders) > 0


def _sees_more(holder: Holder, kinds: tuple[type, ...]) -> bool:
    """Whether a search would find a generator where none was: in what has come alone it looks."""
    now, held = holder.read(holder.value), holder.held
    found = False
    if len(now) != len(held) or not all(map(operator.is_, now, held)):
        before, still = set(map(id, held)), set(map(id, now))
        fresh = [each for each in now if may_hold_generator(each) and id(each) not in before]
        searches = [search_in_data(each, kinds) for each in fresh]
        found = any(search.found for search in searches)
        holder.held = now
        holder.within = [each for each in holder.within if id(each.value) in still]
        holder.within += [each for search in searches for each in search.holders]
    return _any_sees_more(holder.within, kinds) or found
