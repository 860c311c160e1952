"""One sentence at a time to whoever sits before the notebook."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from colabkit.notebook.environment import OutputKind, Reader, reader
from colabkit.notebook.screens import LOG_PERIOD_S, bar_type_for
from colabkit.notebook.words import duration_words

_BARS = "tqdm.std"


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
    if _BARS in sys.modules:
        bar_type_for(OutputKind.TERMINAL).write(sentence)
    else:
        # No bar was ever shown, and loading tqdm to print above one takes longer than it all.
        sys.stdout.write(f"{sentence}\n")
    # A log is a file: what waits in a buffer there is read when it is too late. Where it takes
    # nothing, as on a full disk, it goes on waiting: no sentence is worth a training.
    with contextlib.suppress(OSError):
        sys.stdout.flush()


@contextlib.contextmanager
def said_if_it_lasts(sentence: str, *, after_s: float) -> Iterator[None]:
    """Says a sentence when what is done meanwhile takes longer than some seconds.

    Where a command line reads, it says each 10 s that it still waits: one that hears nothing
    for half a minute takes the cell for dead.

    Args:
        sentence: What is waited for.
        after_s: How long nothing is said.

    Example:
        >>> with said_if_it_lasts("Waiting.", after_s=60):
        ...     pass
    """
    # Whoever is waited for may have the output redirected meanwhile.
    stream, began_s, over = sys.stdout, time.monotonic(), threading.Event()
    is_impatient = reader() is Reader.COMMAND_LINE

    def speak() -> None:
        words = sentence
        while not over.wait(after_s if words is sentence else LOG_PERIOD_S):
            stream.write(f"{words}\n")
            stream.flush()
            if not is_impatient:
                return
            waited_s = time.monotonic() - began_s + LOG_PERIOD_S
            words = f"Still waiting, for {duration_words(waited_s)} now."

    speaking = threading.Thread(target=speak, name="colabkit-waiting", daemon=True)
    speaking.start()
    try:
        yield
    finally:
        over.set()
        speaking.join()


def silence_s(usual_s: float) -> float:
    """Returns for how long nothing may be said: no longer than a command line waits.

    Example:
        >>> silence_s(60.0)
        60.0
    """
    return min(usual_s, LOG_PERIOD_S) if reader() is Reader.COMMAND_LINE else usual_s


class Printed:
    """Says every sentence."""

    def say(self, sentence: str) -> None:
        say(sentence)


class Silent:
    """Says nothing: the twin for ``progress=False``."""

    def say(self, sentence: str) -> None: ...
