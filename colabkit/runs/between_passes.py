"""Where sources with a state of their own stand while no loop reads them."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Mapping
from typing import Any

from colabkit.frameworks.base import Feed
from colabkit.frameworks.lending import held_weakly

MAY_BE_MADE_ANEW = (
    "the data goes on by a state of its own, and was read in one pass only: whether its next pass"
    " is of the same object cannot be known"
)
CANNOT_BE_TOLD_APART = (
    "sources that go on by a state of their own take turns in one loop, and a resume cannot tell"
    " them apart by what they give first: have each read by a loop of its own, in every epoch"
)
TAKEN_FOR_NEW = (
    "a loop that has read other sources with a state of their own reads one that gives first what"
    " none of them gave: it is taken for new, and were it one of them whose data has changed,"
    " nothing would tell"
)
LOADER_MADE_ANEW = (
    "each pass has a new loader over data that goes on by a state of its own, which a resume"
    " begins anew: make the loader once, before the loop over epochs"
)

Lend = Callable[[Feed, Callable[[], tuple[bool, bool]]], tuple[bool, bool]]


@dataclasses.dataclass(slots=True)
class _Rest:
    """A source between two passes.

    Attributes:
        calls: Numbers of the loops that read it, within their epochs.
        state: What it said of itself after its newest pass.
        is_known: Whether it was seen that each pass is of the same object, or of another.
        is_made_anew: Whether each pass is of another object, which begins at its own beginning.
        takes_turns: Whether it stays where a loop of its number reads another.
        open_call: Number of the loop that reads it now.
        feed: The source; None where this session has not met it, or its turn is over.
        keeper: What gives its state, held by others alone; None where this session has not met it.
    """

    calls: list[int]
    state: object = None
    is_known: bool = False
    is_made_anew: bool = False
    takes_turns: bool = False
    open_call: int | None = None
    feed: Feed | None = None
    keeper: Callable[[], object] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether an earlier session has read it, and this one has not met it."""
        return self.keeper is None and self.state is not None and not self.is_made_anew

    def take(self, feed: Feed, call: int) -> None:
        """Takes down which loop reads it in this session."""
        self.feed, self.keeper, self.open_call = feed, held_weakly(_keeper_of(feed)), call

    def look_who_holds(self, lend: Lend) -> tuple[bool, bool]:
        """Returns whether others hold the source, and whether they hold what it reads from."""
        feed, keeper = self.feed, self.keeper
        assert feed is not None and keeper is not None  # noqa: S101, PT018  # for the type checker
        within = getattr(keeper(), "dataset", None)
        inner = held_weakly(within if hasattr(within, "state_dict") else None)
        within = None

        def look() -> tuple[bool, bool]:
            if keeper() is not None or inner() is not None:
                gc.collect()  # what only refers to itself is held by nobody
            return keeper() is not None, inner() is not None

        found = lend(feed, look)
        if _keeper_of(feed) is not keeper():
            self.feed = None
        return found


class BetweenPasses:
    """Keeps the state of each source that has one from pass to pass, over sessions.

    In the session that has read it, the object itself knows. Another session has a new object,
    which is the same source where a loop of the same number within its epoch reads it; of several
    that took turns there, it is the one that gave first what this one gives.

    Attributes:
        lend: Calls something while only others hold the data of a feed, which is let go where
            nobody does.
        accepts: Whether a source that gives another batch first is taken for what it is now.
        reasons: Why the sources of this training cannot be known again.
    """

    def __init__(self) -> None:
        self.lend: Lend = lambda _, look: look()
        self.accepts = False
        self.reasons: tuple[str, ...] = ()
        self._rests: list[_Rest] = []

    def keeps(self, feed: Feed) -> bool:
        """Whether the source will be known when it is read again, in whatever epoch."""
        return self._met(feed) is not None

    def note(self, feed: Feed, call: int) -> None:
        """Takes down where a source stands whose loop is over."""
        rest = self._met(feed)
        if rest is None:
            return
        rest.is_known |= call in rest.calls and rest.state is not None
        rest.calls += [call] if call not in rest.calls else []
        rest.state, rest.open_call = feed.state(), None
        others = (each for each in self._of(call) if each is not rest)
        if any(_gave_the_same(each.state, rest.state) for each in others):
            self._add(CANNOT_BE_TOLD_APART)

    def begin(
        self, feed: Feed, call: int, *, goes_on: bool = False, is_one: bool = False
    ) -> object:
        """Returns the state with which a loop begins.

        None where the object itself knows, or begins at its own beginning.

        Args:
            feed: What the loop reads.
            call: Number of the loop within its epoch.
            goes_on: Whether it was under way at the checkpoint, and knows its place.
            is_one: Whether each epoch is known to read the same source.
        """
        if not _has_state(feed):
            return None
        rest, state = self._met(feed), None
        if rest is None and goes_on:
            waiting = [each for each in self._rests if each.keeper is None]
            under_way = (each for each in waiting if each.open_call == call)
            rest = next(under_way, next((each for each in waiting if call in each.calls), None))
        elif rest is None:
            rest = self._told(feed, call, is_one=is_one)
            state = None if rest is None else rest.state
        if rest is None:
            before = self._of(call)
            is_anew = any(each.is_made_anew for each in before)
            rest = _Rest([call], is_known=is_anew, is_made_anew=is_anew)
            for each in before:
                if each.is_made_anew:
                    each.calls.remove(call)
            self._rests = [*(each for each in self._rests if each.calls), rest]
        for each in self._rests:
            each.open_call = None if each.open_call == call else each.open_call
        rest.take(feed, call)
        return state

    def _told(self, feed: Feed, call: int, *, is_one: bool) -> _Rest | None:
        """Returns the source of an earlier session that one is, as far as can be told."""
        self._see_who_stays(call)
        of_loop = [each for each in self._of(call) if not each.is_made_anew]
        waiting = [each for each in self._rests if each.is_waiting]
        its_own = of_loop[0] if len(of_loop) == 1 and not of_loop[0].takes_turns else None
        if its_own is None or len(waiting) > 1 or self.accepts:
            gave: Any = getattr(feed, "gave", lambda _: True)
            found = [each for each in waiting if gave(each.state)]
            others_turn = its_own not in found and (len(found) == 1 or self.accepts)
            if its_own is None or others_turn:
                if of_loop and waiting and len(found) != 1:
                    self._add(CANNOT_BE_TOLD_APART if found else TAKEN_FOR_NEW)
                return found[0] if found else None
        if its_own is None or not its_own.is_waiting:
            return None
        is_fresh = not (isinstance(its_own.state, Mapping) and "source" in its_own.state)
        if not (its_own.is_known or is_fresh or is_one):
            self._add(MAY_BE_MADE_ANEW)
        return its_own

    def _see_who_stays(self, call: int) -> None:
        """Tells sources that take turns in a loop from one that is made anew for each pass."""
        for rest in self._of(call):
            if rest.feed is None or rest.takes_turns:
                is_held, holds_inner = rest.keeper is None or rest.keeper() is not None, False
            else:
                is_held, holds_inner = rest.look_who_holds(self.lend)
                rest.takes_turns, rest.is_made_anew = is_held, not is_held
            if not is_held and holds_inner:
                self._add(LOADER_MADE_ANEW)
            elif not is_held and rest.takes_turns:
                rest.calls.remove(call)  # it was held by nobody but a loop that was left
        for rest in (each for each in self._of(call) if each.keeper is None):
            rest.takes_turns |= any(each.takes_turns for each in self._of(call))

    def _add(self, reason: str) -> None:
        self.reasons = tuple(dict.fromkeys((*self.reasons, reason)))

    def _met(self, feed: Feed) -> _Rest | None:
        keeper = _keeper_of(feed)
        for each in self._rests:
            if each.keeper is not None and (each.feed is feed or each.keeper() is keeper):
                return each
        return None

    def _of(self, call: int) -> list[_Rest]:
        return [rest for rest in self._rests if call in rest.calls]

    def state_dict(self) -> list[dict[str, Any]]:
        """Returns plain values, and the states as they are."""
        names = ("calls", "state", "is_known", "is_made_anew", "takes_turns", "open_call")
        kept = [{name: getattr(rest, name) for name in names} for rest in self._rests]
        return [{**each, "calls": list(each["calls"])} for each in kept]

    def load_state_dict(self, state: list[Mapping[str, Any]]) -> None:
        """Restores what ``state_dict`` gave."""
        self._rests = [_Rest(**each) for each in state]


def _has_state(feed: Feed) -> bool:
    return not getattr(feed, "goes_back", True)


def _keeper_of(feed: Feed | None) -> Any:
    return getattr(feed, "keeper", feed)


def _gave_the_same(one: object, other: object) -> bool:
    """Whether two sources gave the same first, as far as their states say what."""
    heads = [each.get("head") if isinstance(each, Mapping) else None for each in (one, other)]
    first, second = (head and head["kept"]["leaves"] for head in heads)
    return first is not None and first == second
