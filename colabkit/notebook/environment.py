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
    LOG = "a file, a pipe, or a reader that prints each drawing anew"


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


def redraws() -> bool:
    """Whether this is a notebook whose reader draws in place what was shown before.

    On Colab its own page does, and names the cell in whatever it asks. An editor's extension and
    Colab's command line name none; the latter prints each drawing anew.
    """
    if not in_notebook():
        return False
    shell = sys.modules["IPython"].get_ipython()
    if not any(kind.__module__.startswith("google.colab.") for kind in type(shell).__mro__):
        return True
    asked = getattr(shell, "parent_header", None) or {}
    return bool(asked.get("metadata", {}).get("colab", {}).get("cell_id"))


def place_of(stream: TextIO) -> Place:
    """Returns what ``stream`` ends in."""
    if in_notebook() and stream in {sys.stdout, sys.stderr}:
        if not redraws():
            return Place.LOG
        has_widgets = importlib.util.find_spec("ipywidgets") is not None
        return Place.WIDGETS if has_widgets else Place.NOTEBOOK
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return Place.TERMINAL
    return Place.LOG
