"""What another program prints, shown as it comes."""

from __future__ import annotations

import sys


def show_output(text: str, *, is_error: bool = False) -> None:
    """Shows a piece of a program's output as it is.

    Example:
        >>> show_output("epoch 1")
        epoch 1
    """
    stream = sys.stderr if is_error else sys.stdout
    stream.write(text)
    stream.flush()
