"""Who is waited for: each process notes in their store how far it has come, and reads the others.

A thread does so, beside collectives that may wait for half an hour and name nobody.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch.distributed

from colabkit.errors import ProcessLostError
from colabkit.frameworks.torch.beats import Beat, Doing, Place, apart, late_ranks, stopped
from colabkit.frameworks.torch.connections import Connections, end_pairs, open_pairs

# It names its stores without exporting them.
_engine: Any = torch.distributed
_logger = logging.getLogger(__name__)
_T = TypeVar("_T")
# A store that does not answer for as long is on the other side of a network that is gone.
STORE_TIMEOUT_S = 10.0
# Some of its calls know no time-out: they end with the connection, which Linux keeps 15 minutes
# where the other machine is gone, and for ever where the process there stands still.
UNANSWERED_S = 120.0
_FAILED, _GO = "failed", "go"
# So many read what all say; the others only write, or a thousand would read a million lines.
_READERS = 8
# While it waits, a process asks more often than it speaks whether another has failed.
_LOOKS_A_BEAT = 5
_SLICE_S, _HEARD_S = 1.0, 5.0
_AGAIN = "Start all of them again: training goes on from the newest checkpoint."
_ALL_COME = "each process must come to this call of fit or Run"


class Board:
    """What the processes leave for each other beside their collectives; safe from any thread.

    It has its own connection: that of the groups is held by whoever waits on it.

    Args:
        name: Tells it from those that they have had before.
        deadline_s: After how long a process that holds the store and stands still is given up.

    Attributes:
        store: Where it keeps that.
    """

    def __init__(self, name: str, *, deadline_s: float) -> None:
        self._connection, self._port, store = _own_connection(deadline_s)
        self.store = _engine.PrefixStore(f"colabkit {name}", store)

    def _ask(self, question: Callable[[Any], _T]) -> _T:
        try:
            return question(self.store)
        except RuntimeError:
            # What is answered late would be taken for the answer to the next question.
            self._connection.end()
            raise

    def tell_failure(self, what: str) -> None:
        """Says why this process has stopped, unless another has said so of itself before."""
        with contextlib.suppress(RuntimeError):
            if not self._ask(lambda store: store.check([_FAILED])):
                self._ask(lambda store: store.set(_FAILED, what))

    def failure(self) -> str:
        """Returns why a process has stopped, "" where none has said so."""
        with contextlib.suppress(RuntimeError):
            if self._ask(lambda store: store.check([_FAILED])):
                return str(self._ask(lambda store: store.get(_FAILED)).decode())
        return ""

    def post(self, name: str, content: str) -> None:
        """Leaves something under a name, where the store is still there."""
        with contextlib.suppress(RuntimeError):
            self._ask(lambda store: store.set(f"post {name}", content))

    def posted(self, name: str) -> str | None:
        """Returns what lies under a name, once; None where nothing does."""
        key = f"post {name}"
        with contextlib.suppress(RuntimeError):
            if self._ask(lambda store: store.check([key])):
                content = str(self._ask(lambda store: store.get(key)).decode())
                self._ask(lambda store: store.delete_key(key))
                return content
        return None

    def put(self, rank: int, beat: Beat) -> None:
        """Leaves what a process says of itself."""
        self._ask(lambda store: store.set(f"beat {rank}", beat.line()))

    def put_ends(self, rank: int) -> None:
        """Leaves the ends of this process's connections, for others to end those with it."""
        ends = "\n".join(open_pairs(but_port=self._port))
        self._ask(lambda store: store.set(f"ends {rank}", ends))

    def end_connections(self, rank: int, size: int) -> None:
        """Ends this process's connections to those others that have left their ends."""
        keys = [f"ends {each}" for each in range(size) if each != rank]

        def read(store: Any) -> set[str]:
            there = [store.get(key).decode() for key in keys if store.check([key])]
            return {pair for ends in there for pair in ends.split("\n")}

        with contextlib.suppress(RuntimeError):
            end_pairs(self._ask(read), but_port=self._port)

    def beats(self, size: int) -> dict[int, Beat]:
        """Returns what each process has said last; who has said nothing is left out."""
        keys = {rank: f"beat {rank}" for rank in range(size)}

        def read(store: Any) -> dict[int, Beat]:
            there = {rank: key for rank, key in keys.items() if store.check([key])}
            return {rank: Beat.read(store.get(key)) for rank, key in there.items()}

        return self._ask(read)


class RollCall:
    """Who has come to join: before anything that would wait for one who has failed on the way.

    Args:
        board: Where they say so.
        rank: Number of this process.
        size: How many are to come.
    """

    def __init__(self, board: Board, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        self._board, self._store = board, board.store

    def tell_failure(self, error: BaseException) -> None:
        """Says that this process will not come, and why."""
        self._board.tell_failure(stopped(self._rank, error))
        with contextlib.suppress(RuntimeError):
            self._store.set(_GO, "")

    def wait(self, timeout_s: float, *, patience_s: float) -> None:
        """Says that this process has come, and waits for the others.

        Raises:
            ProcessLostError: One has failed on its way, or has not come in time.
        """
        self._store.set(f"{self._rank}", "here")
        if self._store.add("count", 1) == self._size:
            self._store.set(_GO, "")
        began_s = said_s = time.monotonic()
        while not self._has_begun():
            now_s = time.monotonic()
            if now_s - began_s > timeout_s:
                message = (
                    f"The {self._size} processes of the job have not come together in"
                    f" {timeout_s:.0f} s: {self._missing()} is missing."
                )
                raise ProcessLostError(message, hint=f"{_AGAIN[:-1]}; {_ALL_COME}.")
            if self._rank == 0 and now_s - said_s > patience_s:
                said_s = now_s
                waited_s = now_s - began_s
                _logger.warning(
                    "Waiting for %s (%.0f s): %s.", self._missing(), waited_s, _ALL_COME
                )
        if words := self._board.failure():
            raise ProcessLostError(words, hint=_AGAIN)

    def _has_begun(self) -> bool:
        """Waits a second for the last one's word, so that Ctrl-C is heard meanwhile."""
        # What fails sooner is not that nobody has said it yet.
        soon_s = time.monotonic() + _SLICE_S / 2
        try:
            self._store.wait([_GO], datetime.timedelta(seconds=_SLICE_S))
        except RuntimeError:
            if time.monotonic() < soon_s:
                raise
            return False
        return True

    def _missing(self) -> str:
        ranks = [rank for rank in range(self._size) if not self._store.check([f"{rank}"])]
        return _names(ranks, {})


class Heartbeats:
    """A thread that says of this process how far it is, and names who keeps it waiting.

    Args:
        board: Where the processes leave it.
        rank: Number of this process.
        size: How many there are.
        place: Gives where it is.
        step: Gives how far it is.
        on_failure: Called with why, when another process has said that it has failed, or all have
            come apart.
        patience_s: After how many seconds of waiting it is said whom for.
    """

    def __init__(
        self,
        board: Board,
        rank: int,
        size: int,
        *,
        place: Callable[[], Place],
        step: Callable[[], int],
        on_failure: Callable[[str], None],
        patience_s: float,
    ) -> None:
        self._board, self._rank, self._size = board, rank, size
        self._place, self._step, self._on_failure = place, step, on_failure
        self._patience_s = patience_s
        self._over = threading.Event()
        self._host, self._number = socket.gethostname(), 0
        # At once, for who stops before its first beat is to be named with its machine.
        self.say()
        self._thread = threading.Thread(target=self._work, name="colabkit-heartbeats", daemon=True)
        self._thread.start()

    def say(self) -> None:
        """Says where this process is, now."""
        with contextlib.suppress(RuntimeError):  # as in the thread
            self._put(self._place())

    def _put(self, place: Place) -> Beat:
        own = Beat(self._number, place, self._host)
        self._number += 1
        if place.doing not in {Doing.ANYTHING, Doing.OUTSIDE}:
            self._board.put_ends(self._rank)
        self._board.put(self._rank, own)
        return own

    def stop(self) -> None:
        """Ends the thread, and says that no loop runs here, unless an error has ended it."""
        self._over.set()
        self._thread.join(STORE_TIMEOUT_S)
        place = self._place()
        if place.doing is not Doing.LEFT:
            with contextlib.suppress(RuntimeError):  # as in the thread
                self._put(dataclasses.replace(place, doing=Doing.OUTSIDE))

    def _work(self) -> None:
        # Whoever has gone, with the store or without, is for the collectives to find.
        with contextlib.suppress(RuntimeError):
            self._watch()

    def _watch(self) -> None:
        came = seen = -1
        came_s = said_s = time.monotonic()
        before: dict[int, Beat] = {}
        last: dict[int, Beat] = {}
        for look in itertools.count(1):
            if self._over.wait(self._patience_s / 12 / _LOOKS_A_BEAT):
                return
            place = self._place()
            is_waiting, seen = place.meetings == seen, place.meetings
            if is_waiting and (words := self._board.failure()):
                self._hear(words)
                return
            if look % _LOOKS_A_BEAT:
                continue
            now_s, own = time.monotonic(), self._put(place)
            if place.meetings != came:
                came, came_s, said_s, before, last = place.meetings, now_s, now_s, {}, {}
                continue
            if self._rank >= _READERS:
                continue
            # What the others said some looks ago: who has not spoken since does not live.
            now = self._board.beats(self._size)
            before = before or now
            if why := apart(last, now, size=self._size):
                self._board.tell_failure(why)
            last = now
            if now_s - said_s >= self._patience_s:
                said_s = now_s
                self._say(own, before, now, waited_s=now_s - came_s)
                before = {}

    def _hear(self, words: str) -> None:
        """Ends what this process waits for, now that one has said why nobody will come."""
        self._on_failure(words)
        if not self._over.wait(_HEARD_S):
            # In a group of the user's own, whose waits nothing else could end.
            _logger.error("%s. This process still waits for it.", words)

    def _say(
        self, own: Beat, before: Mapping[int, Beat], now: Mapping[int, Beat], *, waited_s: float
    ) -> None:
        late = late_ranks(own, before, now, expected=range(self._size))
        on_time = [rank for rank in range(self._size) if rank not in late]
        if not late or not on_time or on_time[0] != self._rank:
            return
        names = _names(late, now)
        step = f"{self._step():,}"
        _logger.warning("Waiting for %s since step %s (%.0f s).", names, step, waited_s)


def _names(ranks: Sequence[int], known: Mapping[int, Beat]) -> str:
    named = ", ".join(_name(rank, known.get(rank)) for rank in ranks[:8])
    return named + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")


def _name(rank: int, beat: Beat | None) -> str:
    host = f" on {beat.host}" if beat else ""
    is_outside = beat is not None and beat.place.doing is Doing.OUTSIDE
    return f"process {rank}{host}{' (in no loop over the run)' if is_outside else ''}"


def _own_connection(deadline_s: float) -> tuple[Connections, int, Any]:
    """Returns the connection of its own to the store that the processes met at, its port, and it.

    The port is 0 for a store without one.
    """
    store = _engine.distributed_c10d._get_default_store()
    while isinstance(store, _engine.PrefixStore):
        store = store.underlying_store
    opened, port = Connections(), 0
    if isinstance(store, _engine.TCPStore):
        port = store.port
        timeout = datetime.timedelta(seconds=STORE_TIMEOUT_S)
        store = _engine.TCPStore(
            store.host, store.port, is_master=False, wait_for_workers=False, timeout=timeout
        )
        opened.note(port=store.port)
        opened.give_up_after(unacknowledged_s=UNANSWERED_S, unanswered_s=deadline_s)
    # torchrun keeps its store when it starts all processes again.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return opened, port, _engine.PrefixStore(f"attempt {attempt}", store)
