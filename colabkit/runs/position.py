"""Where a run stands in its data: which loops of the epoch are done, which are open, how far."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from colabkit.frameworks.base import Feed
from colabkit.frameworks.batch_watches import Watch
from colabkit.runs.between_passes import BetweenPasses


@dataclasses.dataclass(slots=True)
class Cursor:
    """One loop over data that is under way.

    Attributes:
        call: Number of the loop within the epoch, counted over all loops.
        batches_done: Batches handed out; all of them count as trained at a boundary.
        feed_state: What the data source said of itself, for sources that can.
        feed_description: Length and batch size, which tell loops apart at a resume.
        outermost: Whether no other loop was open when this one began.
        newest: The newest batch that is known of those trained, as a plain state, or None.
        feed: The data source while the loop is open.
        watch: What takes down its batches while the loop is open.
        is_over: Whether the program has left the loop, or its epoch.
    """

    call: int
    batches_done: int = 0
    feed_state: object = None
    feed_description: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    outermost: bool = True
    newest: Mapping[str, Any] | None = None
    feed: Feed | None = None
    is_over: bool = False
    watch: Watch | None = None

    def note_place(self, epoch: int) -> None:
        """Takes down what the source says of its place, and what it gave last."""
        if self.feed is None:
            return
        self.feed_state = self.feed.state()
        if self.watch is not None:
            kept = self.watch.kept(epoch, self.batches_done, self.feed.reasons())
            self.newest = None if kept is None else kept.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Returns the cursor as plain values."""
        return {
            "call": self.call,
            "batches_done": self.batches_done,
            "feed_state": self.feed_state,
            "feed_description": dict(self.feed_description),
            "outermost": self.outermost,
            "newest": self.newest,
        }


class Position:
    """The place in one epoch, for any nesting of loops over data.

    Loops that stand one after the other are replayed by count: those already done are
    skipped. Loops that ran side by side (``zip``) or inside another go on where they were.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.step = 0
        self.outermost_done = 0
        self.calls = 0
        self.open: list[Cursor] = []
        self._data_reasons: tuple[str, ...] = ()
        self._to_skip = 0
        self._to_reopen: list[Cursor] = []
        self._is_at_next = False
        self.between = BetweenPasses()

    def begin_epoch(self, epoch: int) -> None:
        """Moves to the start of an epoch; a no-op for the epoch just restored."""
        if epoch == self.epoch:
            return
        self.epoch = epoch
        self.outermost_done = self.calls = self._to_skip = 0
        self._data_reasons = self.data_reasons
        for cursor in self.open:
            cursor.is_over = True
        self.open, self._to_reopen, self._is_at_next = [], [], False

    def begin_epoch_anew(self) -> None:
        """Moves back to the start of the epoch under way; its steps stay counted."""
        epoch, self.epoch = self.epoch, -1
        self.begin_epoch(epoch)

    @property
    def data_reasons(self) -> tuple[str, ...]:
        """Why the data of this training cannot be repeated, as any of its sessions has found."""
        feeds = (cursor.feed for cursor in self.open if cursor.feed is not None)
        found = (reason for feed in feeds for reason in feed.reasons())
        return tuple(dict.fromkeys((*self._data_reasons, *self.between.reasons, *found)))

    def keeps(self, feed: Feed) -> bool:
        """Whether a source is known by the place where it stands between two passes."""
        return self.between.keeps(feed)

    def enter(self, feed: Feed, *, has_one_feed: bool = False) -> Cursor | None:
        """Opens the next loop.

        Args:
            feed: What it reads.
            has_one_feed: Whether each epoch is known to read the same source.

        Returns:
            Its cursor, or None when the loop was finished before the resume.
        """
        leads = self.leading is None
        if leads and self._to_skip:
            self._to_skip -= 1
            return None
        if leads:
            self._is_at_next = False
        description = dict(feed.describe())
        cursor = self._reopened(description, leads=leads)
        if cursor is None:
            cursor = Cursor(call=self.calls, outermost=leads, feed_description=description)
            self.calls += 1
            cursor.feed_state = self.between.begin(feed, cursor.call, is_one=has_one_feed)
        else:
            self.between.begin(feed, cursor.call, goes_on=True)
        cursor.feed = feed
        self.open.append(cursor)
        return cursor

    def _reopened(self, description: Mapping[str, Any], *, leads: bool) -> Cursor | None:
        """Returns the loop of the checkpoint that this one is, None when it is another."""
        waiting = self._to_reopen
        found = next((cursor for cursor in waiting if cursor.outermost == leads), None)
        if found is None and leads:
            # The loop that led may have ended at once, before the one beside it was read.
            alike = (c for c in waiting if c.feed_description in ({}, description))
            found = next(alike, None)
        if found is not None:
            waiting.remove(found)
        return found

    @property
    def is_behind(self) -> bool:
        """Whether the program is yet to come to the place that a checkpoint has held.

        Until then it does again what the state put back has in it already: the heads of epochs,
        and what stands between two loops.
        """
        return bool(self._to_skip or self._has_led or self._is_at_next)

    @property
    def arrives_next(self) -> bool:
        """Whether the loop that begins next takes the program to that place."""
        to_come = self._to_skip + (self._has_led or self._is_at_next)
        return self.leading is None and to_come == 1

    @property
    def _has_led(self) -> bool:
        """Whether a loop that led is to be opened again."""
        return any(cursor.outermost for cursor in self._to_reopen)

    @property
    def begins_next(self) -> bool:
        """Whether the loop that begins next leads, and no part of it is done."""
        return self.leading is None and not (self._to_skip or self._has_led)

    @property
    def leading(self) -> Cursor | None:
        """The open loop whose batches are the run's steps, None between loops."""
        return next((cursor for cursor in self.open if cursor.outermost), None)

    def leave(self, cursor: Cursor) -> None:
        """Closes a loop, finished or broken off."""
        # A generator of an epoch that is over may be closed late.
        if cursor.is_over:
            return
        cursor.is_over = True
        if cursor.feed is not None:
            self.between.note(cursor.feed, cursor.call)
        self._data_reasons = self.data_reasons
        self.open = [other for other in self.open if other is not cursor]
        if cursor.outermost:
            self.outermost_done += 1

    def state_dict(self) -> dict[str, Any]:
        """Returns the position as plain values, for a checkpoint."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "outermost_done": self.outermost_done,
            "calls": self.calls,
            "open": [cursor.state_dict() for cursor in self.open],
            "data_reasons": list(self.data_reasons),
            "between_passes": self.between.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.outermost_done = self._to_skip = state["outermost_done"]
        self.calls = state["calls"]
        self._data_reasons = tuple(state.get("data_reasons", ()))
        self.between.load_state_dict(state.get("between_passes", []))
        self.open, self._to_reopen = [], [Cursor(**cursor) for cursor in state["open"]]
        self._is_at_next = state.get("is_at_next", False)

    def forget_batches(self) -> None:
        """Drops what is kept of the batches of loops that are open, or to be opened again."""
        for cursor in (*self.open, *self._to_reopen):
            cursor.newest = None

    def place(self) -> tuple[int, ...]:
        """Returns all counters, which no two places of a run have in common."""
        return (self.step, self.epoch, self.outermost_done, self.calls, self.batches_done)

    @property
    def outermost_passed(self) -> int:
        """Outermost loops of this epoch that the program has come past in this session."""
        return self.outermost_done - self._to_skip

    @property
    def is_mid_epoch(self) -> bool:
        """Whether any loop of this epoch has begun."""
        return self.calls > 0

    @property
    def batches_done(self) -> int:
        """Batches done in the loop that leads, 0 between loops."""
        cursor = self._led_by
        return 0 if cursor is None else cursor.batches_done

    @property
    def newest(self) -> Mapping[str, Any] | None:
        """What is kept of a batch of the loop that leads, None between loops."""
        cursor = self._led_by
        return None if cursor is None else cursor.newest

    @property
    def _led_by(self) -> Cursor | None:
        """The loop whose batches are the run's steps, open or still to be opened again."""
        cursors = (cursor for cursor in (*self.open, *self._to_reopen) if cursor.outermost)
        return next(cursors, None)
