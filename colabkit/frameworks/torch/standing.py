"""Whether a process stands still in a collective, so that only others can help it on."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import FrameType

import torch

_ENGINE = f"{Path(torch.__file__).parent}/"
_COLLECTIVES = ("distributed/", "autograd/graph.py", "nn/parallel/distributed.py")
# Files are written there, for which no other process is waited.
_OTHERS = ("distributed/checkpoint/", "distributed/elastic/")
# What a process takes of a core while it only waits: its other threads look around.
_IDLE = 0.1


class Collective:
    """The calling thread, as another one sees it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._at: tuple[int, int] | None = None
        self._used_s = self._looked_s = 0.0

    def is_stood_in(self) -> bool:
        """Whether the thread has stood in one place of a collective since the last look.

        While something still arrives there, or is computed, the process uses its core.
        """
        at, before = _place_in(sys._current_frames().get(self._thread)), self._at
        used_s, looked_s = time.process_time(), time.monotonic()
        is_idle = used_s - self._used_s < _IDLE * (looked_s - self._looked_s)
        self._at, self._used_s, self._looked_s = at, used_s, looked_s
        return is_idle and at is not None and at == before


def _place_in(frame: FrameType | None) -> tuple[int, int] | None:
    """Returns what tells a place in the engine's collectives from others."""
    place = (id(frame), frame.f_lasti) if frame is not None else None
    is_there = False
    while frame is not None and frame.f_code.co_filename.startswith(_ENGINE):
        name = frame.f_code.co_filename.removeprefix(_ENGINE)
        if name.startswith(_OTHERS):
            return None
        is_there = is_there or name.startswith(_COLLECTIVES)
        frame = frame.f_back
    return place if is_there else None
