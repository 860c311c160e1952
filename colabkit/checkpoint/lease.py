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
from colabkit.storage import Volume

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
        try:
            there = self._read()
        except StorageError:
            # Writing shows whether the folder can be used; what is there is replaced anyway.
            there = None
        before = there["generation"] if there is not None else 0
        self.generation = max(newest_generation, before) + 1
        self._write()

    def check(self) -> None:
        """Looks whether the folder is still this session's; renews the heartbeat.

        Raises:
            LeaseLostError: A newer session has taken it over.
            StorageError: Whose it is cannot be told, for now.
        """
        there = self._read()
        if there is not None and there.get("owner") != self.owner:
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
        if there is None or self._wall_clock() - self._beat_s > _HEARTBEAT_S:
            self._write()

    def _read(self) -> dict[str, Any] | None:
        """Returns the lease that is there, None when there is none.

        Raises:
            StorageError: Whether there is one cannot be told.
        """
        try:
            content = self._volume.read(_FILE).tobytes()
        except StorageError:
            # A volume that does not answer is no folder without a lease.
            if _FILE in self._volume.list("."):
                raise
            return None
        with contextlib.suppress(ValueError):
            found = json.loads(content)
            if isinstance(found, dict) and type(found.get("generation")) is int:
                return found
        message = f"The lease of {self._volume.location} is not what was written."
        hint = f"Delete {_FILE} there if no other session uses the folder."
        raise StorageError(message, path=self._volume.location, operation="read", hint=hint)

    def _write(self) -> None:
        self._beat_s = self._wall_clock()
        content = {
            "generation": self.generation,
            "owner": self.owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "heartbeat": self._beat_s,
        }
        self._volume.write(_FILE, [np.frombuffer(json.dumps(content).encode(), np.uint8)])
