"""TransferBar: how far a copy or an unpacking is, in bytes and files."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from colabkit.notebook.environment import in_notebook
from colabkit.notebook.screens import Screen, Standing, transfer_screen
from colabkit.notebook.words import bytes_words, duration_words

_logger = logging.getLogger(__name__)

REFRESH_PERIOD_S = 0.2
_RATE_WINDOW_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Transfer:
    """How far a transfer is.

    Attributes:
        phase: What is being done, in a word or two.
        bytes_done: Bytes that are done.
        bytes_total: All bytes, None when unknown.
        files_done: Files that are done.
        files_total: All files, None when unknown.
        note: Something to add, as that the source does not answer.
    """

    phase: str
    bytes_done: int = 0
    bytes_total: int | None = None
    files_done: int = 0
    files_total: int | None = None
    note: str = ""


class TransferBar:
    """A progress bar over bytes; draws at most five times a second.

    Args:
        name: What is transferred.
        progress: False shows nothing.
        stream: Where the bar goes; by default standard error, in a notebook standard output.
        clock: Seconds that only grow.

    Example:
        >>> bar = TransferBar("cats.zip", progress=False)
        >>> bar.update(Transfer("unpacking", 10, 100))
        >>> bar.close()
    """

    def __init__(
        self,
        name: str,
        *,
        progress: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._clock = clock
        self._next_s = clock() + REFRESH_PERIOD_S if progress else float("inf")
        self._stream = stream or (sys.stdout if in_notebook() else sys.stderr)
        self._screen: Screen | None = None
        self._rate = _Rate()

    def update(self, now: Transfer) -> None:
        """Shows how far it is, when the last drawing is old enough."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + REFRESH_PERIOD_S
        try:
            if self._screen is None:
                self._screen = transfer_screen(self._stream, self._clock)
            words = transfer_words(self._name, now, self._rate.at(now_s, now))
            done, total = now.bytes_done, now.bytes_total
            if not total:
                done, total = now.files_done, now.files_total
            self._screen.draw(Standing(done, total, words, words))
        except (OSError, ValueError):
            # The work outlives the terminal or page that watched it.
            _logger.debug("The progress bar's output is closed.", exc_info=True)
            self._screen, self._next_s = None, float("inf")

    def close(self) -> None:
        """Takes the bar away, for the sentence that follows; does nothing the second time."""
        screen, self._screen, self._next_s = self._screen, None, float("inf")
        if screen is not None:
            try:
                screen.close()
            except (OSError, ValueError):
                _logger.debug("The progress bar's output is closed.", exc_info=True)


def transfer_words(name: str, now: Transfer, bytes_per_s: float | None) -> str:
    """Returns how far a transfer is, in words.

    Example:
        >>> transfer_words("cats.zip", Transfer("unpacking", 5_000, 20_000, 3, 9), 1_000.0)
        'cats.zip · unpacking · 5.0 kB/20.0 kB · 3/9 files · 1.0 kB/s · 15 s left'
    """
    words = [name, now.phase]
    if now.bytes_done or now.bytes_total:
        total = f"/{bytes_words(now.bytes_total)}" if now.bytes_total else ""
        words.append(f"{bytes_words(now.bytes_done)}{total}")
    if now.files_done or now.files_total:
        total = f"/{now.files_total:,}" if now.files_total else ""
        noun = "file" if (now.files_total or now.files_done) == 1 else "files"
        words.append(f"{now.files_done:,}{total} {noun}")
    if bytes_per_s:
        words.append(f"{bytes_words(bytes_per_s)}/s")
        if now.bytes_total:
            words.append(f"{duration_words((now.bytes_total - now.bytes_done) / bytes_per_s)} left")
    return " · ".join([*words, now.note] if now.note else words)


class _Rate:
    """Bytes a second over the last few seconds, begun anew with each phase."""

    def __init__(self) -> None:
        self._phase = ""
        self._marks: list[tuple[float, int]] = []

    def at(self, now_s: float, now: Transfer) -> float | None:
        if now.phase != self._phase or (self._marks and now.bytes_done < self._marks[-1][1]):
            self._phase, self._marks = now.phase, []
        self._marks.append((now_s, now.bytes_done))
        while len(self._marks) > 2 and now_s - self._marks[0][0] > _RATE_WINDOW_S:
            self._marks.pop(0)
        (then_s, then), (_, done) = self._marks[0], self._marks[-1]
        return (done - then) / (now_s - then_s) if now_s > then_s and done > then else None
