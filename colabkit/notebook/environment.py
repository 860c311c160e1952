"""Where the words go: a notebook, a terminal, or a log file."""

from __future__ import annotations

import enum
import importlib.util
import os
import sys
from typing import TextIO


class Place(enum.Enum):
    """What a stream of output ends in."""

    WIDGETS = "a notebook that shows widgets"
    NOTEBOOK = "a notebook that shows text"
    TERMINAL = "a terminal"
    LOG = "a file or a pipe"


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel; imports nothing that is not loaded.

    Example:
        >>> in_notebook()
        False
    """
    ipython = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython, "get_ipython"):
        return False
    return hasattr(ipython.get_ipython(), "kernel")


def place_of(stream: TextIO) -> Place:
    """Returns what ``stream`` ends in."""
    if in_notebook() and stream in {sys.stdout, sys.stderr}:
        has_widgets = importlib.util.find_spec("ipywidgets") is not None
        return Place.WIDGETS if has_widgets else Place.NOTEBOOK
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return Place.TERMINAL
    return Place.LOG
