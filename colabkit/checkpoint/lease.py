"""Who owns a run folder: the newest session; older ones stop at their next save."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

from colabkit.errors import LeaseLostError, StorageError
from colabkit.storage import Bytes, Volume

_FILE = "lease.json"
_HEARTBEAT_S = 60.0


class Lease:
    """One session's claim on a run folder.

    Args:
        volume: The run folder.
        wall_clock: Seconds since the epoch, for the heartbeat that people may read.
    """

    def __init__(self, volume: Volume, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._volume = volume
        self._wall_clock = wall_clock
        self._beat_s = 0.0
        self.owner = uuid.uuid4().hex[:8]
        self.generation = 0

    def acquire(self, newest_generation: int) -> None:
        """Takes the folder over from whoever had it.

        Args:
            newest_generation: The largest generation among the checkpoints there.

        Raises:
            StorageError: The folder cannot be written.
        """
        there: dict[str, Any] = {}
        with contextlib.suppress(StorageError):
            # A lease that cannot be read keeps nobody out: the run's owner asked for it.
            there = self._read()
        self.generation = max(newest_generation, there.get("generation", 0)) + 1
        self._write()

    def newest_generation(self) -> int:
        """Returns the generation of the session that the folder belongs to, 0 for nobody's.

        Raises:
            StorageError: Whose it is cannot be read at the moment.
        """
        return int(self._read().get("generation", 0))

    def leave_in(self, volume: Volume) -> None:
        """Writes it into another folder of the session, where its other processes look for it.

        Raises:
            StorageError: The folder cannot be written.
        """
        volume.write(_FILE, [self._content()])

    def is_of(self, generation: int, owner: str) -> bool:
        """Whether the folder is that of a session.

        Raises:
            StorageError: Whose it is cannot be read at the moment.
        """
        there = self._read()
        return (there.get("generation"), there.get("owner")) == (generation, owner)

    def check(self) -> None:
        """Looks whether the folder is still this session's; renews the heartbeat.

        Raises:
            LeaseLostError: A newer session has taken it over.
            StorageError: Whose it is cannot be read at the moment.
        """
        there = self._read()
        if self._is_newer(there):
            host, pid = there.get("host", "another machine"), there.get("pid")
            message = (
                f"Another session (process {pid} on {host}) has taken over {self._volume.location}."
            )
            raise LeaseLostError(
                message,
                path=self._volume.location,
                hint="This one stops saving, so that neither harms the other. Go on there, or"
                " stop it and run this cell again.",
            )
        is_mine = there.get("owner") == self.owner
        if not is_mine or self._wall_clock() - self._beat_s > _HEARTBEAT_S:
            self._write()

    def _is_newer(self, there: dict[str, Any]) -> bool:
        """Whether a lease is of a session that began later.

        An older one may reach the cloud after it: each machine's Drive uploads in its own time.
        """
        mine = (self.generation, self.owner)
        return bool(there) and (there["generation"], str(there.get("owner"))) > mine

    def _read(self) -> dict[str, Any]:
        try:
            content = self._volume.read(_FILE)
        except StorageError:
            if _FILE in self._volume.list("."):
                raise
            return {}
        with contextlib.suppress(ValueError):
            found = json.loads(content.tobytes())
            if isinstance(found, dict) and type(found.get("generation")) is int:
                return found
        return {}

    def _write(self) -> None:
        self._beat_s = self._wall_clock()
        self._volume.write(_FILE, [self._content()])

    def _content(self) -> Bytes:
        content = {
            "generation": self.generation,
            "owner": self.owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "heartbeat": self._beat_s,
        }
        return np.frombuffer(json.dumps(content).encode(), np.uint8)
