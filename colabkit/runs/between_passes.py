"""Where sources with a state of their own stand while no loop reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from colabkit.frameworks.base import Feed

MAY_BE_MADE_ANEW = (
    "the data goes on by a state of its own, and was read in one pass only: whether its next pass"
    " is of the same object cannot be known"
)


@dataclasses.dataclass(slots=True)
class _Rest:
    """A source between two passes.

    Attributes:
        calls: Numbers of the loops that read it, within their epochs.
        state: What it said of itself after its newest pass.
        feed: The source; None where this session has not met it yet.
        is_known: Whether it was seen that each pass is of the same object, or of another.
        is_made_anew: Whether each pass is of another object, which begins at its own beginning.
    """

    calls: list[int]
    state: object = None
    feed: Feed | None = None
    is_known: bool = False
    is_made_anew: bool = False


class BetweenPasses:
    """Keeps the state of each source that has one from pass to pass, over sessions.

    In the session that has read it, the object itself knows. Another session has a new object,
    which is the same source where a loop of the same number within its epoch reads it.
    """

    def __init__(self) -> None:
        self._rests: list[_Rest] = []

    def keeps(self, feed: Feed) -> bool:
        """Whether the source will be known when it is read again, in whatever epoch."""
        return self._met(feed) is not None

    def note(self, feed: Feed, call: int) -> None:
        """Takes down where a source stands whose loop is over."""
        if not _has_state(feed):
            return
        rest = self._met(feed)
        if rest is None:
            before = self._of(call)
            rest = _Rest([], feed=feed, is_made_anew=before is not None)
            if before is not None:
                rest.is_known = True
                before.calls.remove(call)
            self._rests = [each for each in (*self._rests, rest) if each is rest or each.calls]
        elif call in rest.calls:
            rest.is_known = True
        if call not in rest.calls:
            rest.calls.append(call)
        rest.state = feed.state()

    def begin(self, feed: Feed, call: int) -> tuple[object, bool]:
        """Returns the state with which a loop begins, and whether it is known to be the source's.

        None where the object itself knows, or begins at its own beginning.
        """
        rest = self._of(call)
        is_met = not _has_state(feed) or self._met(feed) is not None
        if is_met or rest is None or rest.feed is not None or rest.is_made_anew:
            return None, True
        rest.feed = feed
        is_fresh = not (isinstance(rest.state, Mapping) and "source" in rest.state)
        return rest.state, rest.is_known or is_fresh

    def _met(self, feed: Feed) -> _Rest | None:
        return next((rest for rest in self._rests if rest.feed is feed), None)

    def _of(self, call: int) -> _Rest | None:
        return next((rest for rest in self._rests if call in rest.calls), None)

    def state_dict(self) -> list[dict[str, Any]]:
        """Returns plain values, and the states as they are."""
        return [
            {
                "calls": list(rest.calls),
                "state": rest.state,
                "is_known": rest.is_known,
                "is_made_anew": rest.is_made_anew,
            }
            for rest in self._rests
        ]

    def load_state_dict(self, state: list[Mapping[str, Any]]) -> None:
        """Restores what ``state_dict`` gave."""
        self._rests = [_Rest(**each) for each in state]


def _has_state(feed: Feed) -> bool:
    return not getattr(feed, "goes_back", True)
