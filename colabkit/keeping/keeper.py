"""The keeper: one thread that brings what is new in a folder to a volume, version by version."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable

from colabkit.checkpoint import Lease, Name
from colabkit.keeping.arriving import Arriving
from colabkit.keeping.for_people import ForPeople
from colabkit.keeping.held import Held
from colabkit.keeping.notes import Notes
from colabkit.keeping.progress import KeepProgress
from colabkit.keeping.publishing import ChangedError, LostBlobsError, Publisher
from colabkit.keeping.store import VersionStore
from colabkit.keeping.taking import Pending, Taker
from colabkit.keeping.telling import Telling
from colabkit.keeping.version import Version

_logger = logging.getLogger(__name__)
_POLL_S, _POLL_MAX_S, _SCAN_COST = 0.25, 30.0, 100.0
_REST_MIN_S, _REST_MAX_S, _REST_SHARE = 10.0, 300.0, 4.0
# Where the volume does not say what is uploaded.
_SILENT_REST_S = 60.0
_RETRIES_S = (5.0, 15.0, 60.0)
_BEAT_S = 60.0
_SHOW_S = 60.0
# So far behind the trainer, and no farther: on busy cores the lowest priority gets next to nothing,
# and what is not taken in time the trainer has removed.
_NICER, _NICEST = 5, 19


class Keeper:
    """Keeps one folder; only its own thread touches the volume once it has begun.

    Args:
        taker: Looks at the folder.
        store: The versions on the volume.
        lease: This session's claim on them.
        publisher: Writes them.
        newest: The version that the folder was brought from, or that it goes on from.
        held: What that holds.
        trusted: Versions known to be whole.
        copies: How many versions to keep.
        period_s: How often there may be a version, None for as often as the volume takes them.
        notes: Remembers on this machine how far it is.
        say: Tells the user a sentence.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        taker: Taker,
        store: VersionStore,
        lease: Lease,
        publisher: Publisher,
        *,
        newest: Version | None,
        held: Held,
        trusted: set[Name],
        copies: int,
        period_s: float | None,
        notes: Notes,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._taker, self._store, self._lease, self._publisher = taker, store, lease, publisher
        self._period_s, self._notes, self._clock = period_s, notes, clock
        self._telling = Telling(taker.folder, say)
        self._held, self._progress = held, KeepProgress(newest=newest)
        self._arriving = Arriving(store, lease, trusted, copies)
        if newest is not None:
            # This machine itself may have yet to upload it: it is asked like any other.
            self._arriving.send(newest, held, clock())
        self._for_people = ForPeople(taker.folder, store.volume)
        self._shown: Version | None = newest
        self._next_show_s = self._next_s = self._beat_s = 0.0
        self._tries_failed = self._wanted_rounds = 0
        self._is_urgent = self._stopping = False
        self._scan_cost_s = 0.0
        self._began_s: float | None = None
        self._wake = threading.Condition()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="colabkit-keep", daemon=True)

    def start(self) -> None:
        """Begins to keep."""
        self._thread.start()

    @property
    def progress(self) -> KeepProgress:
        """How far it is."""
        with self._wake:
            return self._progress

    def hurry(self) -> None:
        """Tries at once, whatever went wrong before; for a volume that is back."""
        with self._wake:
            self._next_s, self._tries_failed, self._arriving.must_check = 0.0, 0, True
            self._wake.notify_all()

    def next_round(self, *, timeout_s: float) -> KeepProgress | None:
        """Has a look begin now without rests; returns how far it came, None if it has not ended."""
        with self._wake:
            # One may have begun before what is asked about.
            under_way = self._began_s is not None
            wanted = self._wanted_rounds = self._progress.rounds + 1 + under_way
            self._wake.notify_all()
            is_done = self._wake.wait_for(
                lambda: self._progress.rounds >= wanted or self.failure is not None, timeout_s
            )
            return self._progress if is_done else None

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each file of the newest version, by its path in the folder."""
        return {path: content.hash for path, content in self._held.contents.items()}

    @property
    def revisions(self) -> dict[str, int]:
        """Which version each file of the newest came with, by its path in the folder."""
        return {path: content.revision for path, content in self._held.contents.items()}

    @property
    def busy_s(self) -> float:
        """For how long the look under way has run, 0 when none is."""
        began_s = self._began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Stops the thread, left behind where it hangs."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    # On the keeper's own thread.

    def _work(self) -> None:
        _step_back()
        pause_s = 0.0
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._is_wanted(), pause_s)
                if self._stopping:
                    return
                self._is_urgent = self._is_wanted()
                self._began_s = time.monotonic()
            try:
                self._round()
            except OSError as error:
                self._put_off(error)
            except BaseException as error:  # noqa: BLE001  # raised on the main thread
                self._telling.ended(error)
                self.failure = error
            with self._wake:
                self._began_s = None
                self._set(rounds=self._progress.rounds + 1)
                self._wake.notify_all()
            if self.failure is not None:
                return
            pause_s = min(max(_POLL_S, _SCAN_COST * self._scan_cost_s), _POLL_MAX_S)

    def _is_wanted(self) -> bool:
        return self._progress.rounds < self._wanted_rounds

    def _round(self) -> None:
        began_s = time.thread_time()
        pending = self._taker.scan(self._held)
        self._scan_cost_s = time.thread_time() - began_s
        self._note_waiting(pending)
        self._telling.left_out(pending.scan.left_out)
        is_put_off = self._tries_failed and self._clock() < self._next_s
        if is_put_off:
            return
        self._check_uploads()
        self._show()
        self._beat()
        sent_nbytes = self._publisher.sent_nbytes
        if not pending.is_empty and self._is_due():
            self._publish(pending)
        if self._publisher.sent_nbytes == sent_nbytes:
            # What may not be taken yet is looked at again and again.
            self._scan_cost_s = time.thread_time() - began_s
        self._telling.objections(self._taker.objections, self._clock())
        self._telling.fine()
        self._set(error=None)
        self._tries_failed = 0

    def _is_due(self) -> bool:
        on_their_way = self._arriving.on_their_way
        if len(on_their_way) > (1 if self._arriving.is_silent else 0):
            return False
        return self._is_urgent or self._clock() >= self._next_s

    def _publish(self, pending: Pending) -> None:
        began_s = self._clock()
        try:
            change = self._taker.take(pending, self._held, is_urgent=self._is_urgent)
            self._set(objections=tuple(self._taker.objections.values()))
            done = self._publisher.publish(self._held, change, self._taker.stamps)
        except ChangedError as error:
            self._set(objections=(f"{error} is written all the time",))
            return
        except LostBlobsError as error:
            self._go_on_from(self._held.without(error.names))
            return
        finally:
            self._taker.area.clear()
        self._taker.published(change)
        if done is None:
            return
        version, self._held = done
        self._arriving.send(version, self._held, self._clock())
        self._next_s = self._clock() + self._rest_s(self._clock() - began_s)
        self._notes.published(version, self._taker.stamps)
        self._set(newest=version, sent_nbytes=self._publisher.sent_nbytes)
        self._note_waiting(self._taker.scan(self._held))
        self._check_uploads()
        self._show()
        if change.refused is not None:
            # What went all the same must not hide what this machine had no room to take.
            raise change.refused

    def _rest_s(self, took_s: float) -> float:
        if self._period_s is not None:
            return self._period_s
        least_s = _SILENT_REST_S if self._arriving.is_silent else _REST_MIN_S
        return min(_REST_MAX_S, max(least_s, _REST_SHARE * took_s))

    def _check_uploads(self) -> None:
        """Asks whether what is on its way has arrived; then what is superfluous may go."""
        if self._arriving.must_check and self._arriving.drop_lost():
            self._take_back()
        while (each := self._arriving.arrived(self._clock())) is not None:
            self._set(confirmed=each.version, is_silent=self._arriving.is_silent)
            self._telling.arrived()
            self._arriving.make_room(each.version.name)
        self._set(is_silent=self._arriving.is_silent)
        self._telling.waited(self._arriving.waited_s(self._clock()))

    def _take_back(self) -> None:
        """Has what was lost on its way taken anew."""
        self._go_on_from(self._arriving.safe)
        self._set(newest=self._progress.confirmed)

    def _go_on_from(self, held: Held) -> None:
        """Makes the next version from what is there; what is not is taken anew."""
        lost, self._held = self._held.contents, held
        for path in list(self._taker.stamps):
            if held.contents.get(path) != lost.get(path):
                self._taker.forget(path)
        self._note_waiting(self._taker.scan(held))

    def _show(self) -> None:
        """Makes names for people now and then, and whenever somebody waits."""
        confirmed = self._progress.confirmed
        is_due = self._is_urgent or self._clock() >= self._next_show_s
        if confirmed is None or confirmed is self._shown or not is_due:
            return
        self._next_show_s = self._clock() + _SHOW_S
        self._shown = confirmed
        self._for_people.show(confirmed, self._arriving.safe.contents)

    def _beat(self) -> None:
        if self._clock() - self._beat_s >= _BEAT_S:
            self._lease.check()
            self._beat_s = self._clock()

    def _put_off(self, error: OSError) -> None:
        wait_s = _RETRIES_S[min(self._tries_failed, len(_RETRIES_S) - 1)]
        self._tries_failed += 1
        self._arriving.must_check = True
        self._next_s = self._clock() + wait_s
        self._set(error=error)
        _logger.info("%s could not be kept.", self._taker.folder, exc_info=error)
        self._telling.trouble(error)

    def _note_waiting(self, pending: Pending) -> None:
        nbytes = sum(unit.nbytes for unit in pending.units)
        names = tuple(unit.name for unit in pending.units)
        still = tuple(o for n, o in self._taker.objections.items() if n in names)
        self._set(waiting=names, waiting_nbytes=nbytes, objections=still)

    def _set(self, **changes: object) -> None:
        with self._wake:
            self._progress = dataclasses.replace(self._progress, **changes)  # type: ignore[arg-type]


def _step_back() -> None:
    """Lets whoever trains go first."""
    try:
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        nicer = min(own + _NICER, _NICEST)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nicer)
    except (AttributeError, OSError):
        return
