"""One sentence at a time to whoever sits before the notebook."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Protocol

from colabkit.notebook.screens import TextBar


class Speaker(Protocol):
    """Something that can say a sentence, or keep it to itself."""

    def say(self, sentence: str) -> None:
        """Says one sentence."""


def say(sentence: str) -> None:
    """Prints one sentence, above any progress bar that is shown.

    Example:
        >>> say("Resumed at epoch 3, step 412 (saved 2 min ago).")
        Resumed at epoch 3, step 412 (saved 2 min ago).
    """
    TextBar.write(sentence)


@contextlib.contextmanager
def said_if_it_lasts(sentence: str, *, after_s: float) -> Iterator[None]:
    """Says a sentence when what is done meanwhile takes longer than some seconds.

    Args:
        sentence: What is waited for.
        after_s: How long nothing is said.

    Example:
        >>> with said_if_it_lasts("Waiting.", after_s=60):
        ...     pass
    """
    # Whoever is waited for may have the output redirected meanwhile.
    stream = sys.stdout

    def speak() -> None:
        stream.write(f"{sentence}\n")
        stream.flush()

    timer = threading.Timer(after_s, speak)
    timer.name, timer.daemon = "colabkit-waiting", True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


class Printed:
    """Says every sentence."""

    def say(self, sentence: str) -> None:
        say(sentence)


class Silent:
    """Says nothing: the twin for ``progress=False``."""

    def say(self, sentence: str) -> None: ...
