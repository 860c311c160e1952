"""One sentence at a time to whoever sits before the notebook."""

from __future__ import annotations

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


class Printed:
    """Says every sentence."""

    def say(self, sentence: str) -> None:
        """Prints one sentence."""
        say(sentence)


class Silent:
    """Says nothing: the twin for ``progress=False``."""

    def say(self, sentence: str) -> None:
        """Keeps the sentence to itself."""
