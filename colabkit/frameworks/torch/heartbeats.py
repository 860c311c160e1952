"""Who is waited for: each process notes in their store how far it has come, and reads the others.

A thread does so, beside collectives that may wait for half an hour and name nobody.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch.distributed

# It names its stores without exporting them.
_engine: Any = torch.distributed
_logger = logging.getLogger(__name__)
# A store that does not answer for as long is on the other side of a network that is gone.
STORE_TIMEOUT_S = 10.0
_FAILED = "failed"
# So many read what all say; the others only write, or a thousand would read a million lines.
_READERS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Beat:
    """What a process says of itself.

    Attributes:
        number: How often it has said something.
        meetings: How many meetings with the others it has come to, those under way included.
        host: The machine it runs on.
    """

    number: int
    meetings: int
    host: str

    @classmethod
    def read(cls, line: bytes) -> Beat:
        """Returns what ``line()`` wrote."""
        number, meetings, host = line.decode().split(" ", 2)
        return cls(int(number), int(meetings), host)

    def line(self) -> str:
        """Returns it as the store takes it."""
        return f"{self.number} {self.meetings} {self.host}"


def late_ranks(
    own: Beat, before: Mapping[int, Beat], now: Mapping[int, Beat], *, expected: range
) -> list[int]:
    """Returns the ranks of the processes that are waited for.

    Those behind are; where none is, those that have said nothing since a while ago.

    Args:
        own: What the process that waits says.
        before: What the others had said by then.
        now: What they have said.
        expected: All ranks but those that are known to have come.

    Example:
        >>> then = {0: Beat(8, 40, "a"), 1: Beat(8, 39, "a"), 2: Beat(8, 40, "b")}
        >>> late_ranks(then[0], {}, then, expected=range(3))
        [1]
        >>> still = {**then, 0: Beat(9, 40, "a"), 1: Beat(9, 40, "a")}
        >>> late_ranks(still[0], then, still, expected=range(3))
        [2]
    """
    behind = [rank for rank in expected if rank not in now or now[rank].meetings < own.meetings]
    return behind or [rank for rank in expected if before.get(rank) == now[rank]]


class Board:
    """What the processes leave for each other beside their collectives; safe from any thread.

    It has its own connection: that of the groups is held by whoever waits on it.

    Args:
        name: Tells the processes' world from those that they have made before.
    """

    def __init__(self, name: str) -> None:
        self._store = _engine.PrefixStore(f"colabkit {name}", _own_connection())

    def tell_failure(self, what: str) -> None:
        """Says why this process has stopped, unless another has said so of itself before."""
        with contextlib.suppress(RuntimeError):
            if not self._store.check([_FAILED]):
                self._store.set(_FAILED, what)

    def failure(self) -> str:
        """Returns why a process has stopped, "" where none has said so."""
        with contextlib.suppress(RuntimeError):
            if self._store.check([_FAILED]):
                return str(self._store.get(_FAILED).decode())
        return ""

    def put(self, rank: int, beat: Beat) -> None:
        """Leaves what a process says of itself."""
        self._store.set(f"beat {rank}", beat.line())

    def beats(self, size: int) -> dict[int, Beat]:
        """Returns what each process has said last; who has said nothing is left out."""
        keys = {rank: f"beat {rank}" for rank in range(size)}
        return {
            rank: Beat.read(self._store.get(key))
            for rank, key in keys.items()
            if self._store.check([key])
        }


class Heartbeats:
    """A thread that says of this process how far it is, and names who keeps it waiting.

    Args:
        board: Where the processes leave it.
        rank: Number of this process.
        size: How many there are.
        place: Gives how many meetings it has come to, and the step.
        on_failure: Called when another process has said that it has failed.
        patience_s: After how many seconds of waiting it is said whom for.
    """

    def __init__(
        self,
        board: Board,
        rank: int,
        size: int,
        *,
        place: Callable[[], tuple[int, int]],
        on_failure: Callable[[], None],
        patience_s: float,
    ) -> None:
        self._board, self._rank, self._size = board, rank, size
        self._place, self._on_failure = place, on_failure
        self._patience_s = patience_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="colabkit-heartbeats", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._over.set()
        self._thread.join(STORE_TIMEOUT_S)

    def _work(self) -> None:
        # Whoever has gone, with the store or without, is for the collectives to find.
        with contextlib.suppress(RuntimeError):
            self._watch()

    def _watch(self) -> None:
        host, number, came = socket.gethostname(), 0, -1
        came_s = said_s = time.monotonic()
        before: dict[int, Beat] = {}
        while not self._over.wait(self._patience_s / 12):
            meetings, step = self._place()
            number, now_s = number + 1, time.monotonic()
            own = Beat(number, meetings, host)
            self._board.put(self._rank, own)
            if meetings != came:
                came, came_s, said_s, before = meetings, now_s, now_s, {}
                continue
            if self._board.failure():
                self._on_failure()
                return
            if self._rank >= _READERS:
                continue
            # What the others said some looks ago: who has not spoken since does not live.
            before = before or self._board.beats(self._size)
            if now_s - said_s >= self._patience_s:
                said_s = now_s
                self._say(own, before, step, waited_s=now_s - came_s)
                before = {}

    def _say(self, own: Beat, before: Mapping[int, Beat], step: int, *, waited_s: float) -> None:
        now = self._board.beats(self._size)
        late = late_ranks(own, before, now, expected=range(self._size))
        on_time = [rank for rank in range(self._size) if rank not in late]
        if not late or not on_time or on_time[0] != self._rank:
            return
        names = ", ".join(
            f"process {rank}" + (f" on {now[rank].host}" if rank in now else "")
            for rank in late[:8]
        )
        more = f" and {len(late) - 8} more" if len(late) > 8 else ""
        _logger.warning(
            "Waiting for %s%s since step %s (%.0f s).", names, more, f"{step:,}", waited_s
        )


def _name_of(rank: int, beat: Beat | None) -> str:
    return f"process {rank}" + (f" on {beat.host}" if beat else "")


def _own_connection() -> Any:
    """Returns the store that the processes met at, over a connection that waits 10 s at most."""
    store = _engine.distributed_c10d._get_default_store()
    while isinstance(store, _engine.PrefixStore):
        store = store.underlying_store
    if isinstance(store, _engine.TCPStore):
        timeout = datetime.timedelta(seconds=STORE_TIMEOUT_S)
        store = _engine.TCPStore(
            store.host, store.port, is_master=False, wait_for_workers=False, timeout=timeout
        )
    # torchrun keeps its store when it starts all processes again.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return _engine.PrefixStore(f"attempt {attempt}", store)
