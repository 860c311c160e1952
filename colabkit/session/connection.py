"""stay_connected(): the page reconnects by itself while a training runs, if the user wants it."""

from __future__ import annotations

import importlib
import time
import uuid
from collections.abc import Callable
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.notebook import (
    in_notebook,
    listen_to_trainings,
    say,
    watch_card,
    watch_snippet,
    watch_word,
)
from colabkit.runtime import Platform, detect_platform

_BEAT_S = 30.0
_HOURS_MAX = 24.0


def stay_connected(*, max_hours: float = 12.0) -> None:
    """Shows a snippet with which Colab's page reconnects by itself while a training runs.

    It presses Reconnect when the page says that the connection is lost, and nothing else, while
    a ``fit`` of this session runs and for at most ``max_hours``. Colab's own rules apply, and
    training survives a disconnect without it: run all cells again. Colab shows outputs in a
    frame that cannot reach the page, so the snippet is pasted into the browser's console once.
    Google's own command line, ``colab``, keeps a machine without a page, for 24 hours at most.

    Args:
        max_hours: After so many hours it stops by itself; 24 at most.

    Raises:
        ArgumentError: ``max_hours`` is not between 0 and 24.

    Source:
        googlecolab/colabtools issue 2058: outputs are in a sandboxed frame with guarded access
        to the top-level window.

    Example:
        >>> stay_connected()
        This is not a notebook on Colab: there is no connection to keep.
    """
    if not 0 < max_hours <= _HOURS_MAX:
        hint = f"Pass more than 0 and at most {_HOURS_MAX:g} hours."
        raise ArgumentError.of("max_hours", max_hours, hint)
    if detect_platform() is not Platform.COLAB or not in_notebook():
        say("This is not a notebook on Colab: there is no connection to keep.")
        return
    session = uuid.uuid4().hex
    snippet = watch_snippet(session, max_hours=max_hours)
    _show(watch_card(session, snippet, max_hours=max_hours))
    listen_to_trainings(_Heartbeat(session, until_s=time.time() + max_hours * 3600))


class _Heartbeat:
    """Tells the page every half minute that a training runs.

    Args:
        session: Which session it is.
        until_s: When to stop, in seconds since the epoch.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, session: str, *, until_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._session = session
        self._until_s = until_s
        self._clock = clock
        self._handle: Any = None
        self._next_s = 0.0

    def began(self) -> None:
        """Shows a line below the cell that trains."""
        if self._clock() < self._until_s:
            self._next_s = self._clock() + _BEAT_S
            self._handle = _show(self._word("training", "The page is kept connected."))

    def goes_on(self) -> None:
        """Says so again when it is time."""
        now_s = self._clock()
        if self._handle is None or now_s < self._next_s:
            return
        self._next_s = now_s + _BEAT_S
        if now_s >= self._until_s:
            self.ended()
        else:
            _show(self._word("training", "The page is kept connected."), self._handle)

    def ended(self) -> None:
        """Says that there is nothing to stay for."""
        if self._handle is not None:
            words = "The page is not kept connected any more."
            _show(self._word("ended", words), self._handle)
            self._handle = None

    def _word(self, kind: str, words: str) -> str:
        return watch_word(self._session, kind, words, sent_s=self._clock())


def _show(page: str, handle: Any = None) -> Any:
    display = importlib.import_module("IPython.display")
    bundle = {"text/html": page, "text/plain": "colabkit.stay_connected()"}
    if handle is not None:
        handle.update(bundle, raw=True)
        return handle
    return display.display(bundle, raw=True, display_id=True)
