"""The sources a loop reads from again and again, and for how long each is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from colabkit.frameworks.base import Feed
from colabkit.frameworks.lending import held_weakly
from colabkit.runs.verdict import ResumeVerdict

_Seen = TypeVar("_Seen")


@dataclasses.dataclass(slots=True)
class _Known:
    data: object
    feed: Feed
    epoch: int


class KnownFeeds:
    """Makes one feed for each source and way of reading it.

    What neither this epoch nor the one before has read is let go: a loop that plays games
    makes its data anew each time, and memory must not hold all of it.

    Args:
        is_kept: Whether a source stays, however long ago it was read.
    """

    def __init__(self, is_kept: Callable[[Feed], bool] = lambda _: False) -> None:
        self._is_kept = is_kept
        self._known: dict[tuple[int, int, bool], _Known] = {}
        self._verdict = ResumeVerdict()

    def feed_for(
        self,
        data: Any,
        make: Callable[..., Feed],
        *,
        batch_size: int,
        shuffle: bool,
        epoch: int,
    ) -> Feed:
        """Returns the feed of some data, made when it is read in this way for the first time."""
        for key, each in list(self._known.items()):
            if each.epoch < epoch - 1 and not self._is_kept(each.feed):
                self._verdict = self._verdict.adding_feeds([self._known.pop(key).feed])
        key = (id(data), batch_size, shuffle)
        known = self._known.get(key)
        if known is None:
            feed = make(data, batch_size=batch_size, shuffle=shuffle)
            known = self._known[key] = _Known(data, feed, epoch)
        known.epoch = epoch
        return known.feed

    def lend(self, feed: Feed, look: Callable[[], _Seen]) -> _Seen:
        """Calls ``look`` while others alone hold a feed's data; where none does, it is let go."""
        held = [(key, each) for key, each in self._known.items() if each.feed is feed]
        lent: Any = getattr(feed, "lend", None)
        if not held or lent is None:
            return look()
        ((key, known),) = held
        take_back, data = lent(), held_weakly(known.data)
        known.data = None
        seen, known.data = look(), data()
        if not take_back() or known.data is None:
            self._verdict = self._verdict.adding_feeds([self._known.pop(key).feed])
        return seen

    def added_to(self, verdict: ResumeVerdict) -> ResumeVerdict:
        """Returns a verdict with what the sources have to say, those let go among them."""
        past = self._verdict
        verdict = verdict.adding(reasons=past.reasons, notices=past.notices)
        return verdict.adding_feeds(each.feed for each in self._known.values())
