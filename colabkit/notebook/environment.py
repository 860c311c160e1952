"""Where the words go: a notebook, a terminal, or a log file."""

from __future__ import annotations

import enum
import importlib.util
import os
import sys
from typing import TextIO


class OutputKind(enum.Enum):
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


class Reader(enum.Enum):
    """Who shows a notebook's output to a person, and can ask them."""

    NONE = "no notebook"
    PAGE = "Colab's own page"
    EDITOR = "an editor or another page, which draws in place"
    COMMAND_LINE = "a command line, which prints each drawing anew, or a program that only runs"


def reader() -> Reader:
    """Returns who reads the cell that runs, by what it says of itself when it asks for a cell.

    On Colab its own page names the cell in whatever it asks, and so does VS Code, in its own way.
    Google's command line ``colab`` and papermill name none.

    Source:
        googlecolab/colabtools, googlecolab/google-colab-cli, microsoft/vscode-jupyter
        (src/kernels/execution/cellExecution.ts), jupyter/nbclient.

    Example:
        >>> reader()
        <Reader.NONE: 'no notebook'>
    """
    if not in_notebook():
        return Reader.NONE
    shell = sys.modules["IPython"].get_ipython()
    if not any(kind.__module__.startswith("google.colab.") for kind in type(shell).__mro__):
        return Reader.EDITOR
    said = (getattr(shell, "parent_header", None) or {}).get("metadata") or {}
    if (said.get("colab") or {}).get("cell_id"):
        return Reader.PAGE
    return Reader.EDITOR if said.get("cellId") else Reader.COMMAND_LINE


def redraws() -> bool:
    """Whether this is a notebook whose reader draws in place what was shown before."""
    return reader() in {Reader.PAGE, Reader.EDITOR}


def output_kind_of(stream: TextIO) -> OutputKind:
    """Returns what ``stream`` ends in."""
    if in_notebook() and stream in {sys.stdout, sys.stderr}:
        if not redraws():
            return OutputKind.LOG
        has_widgets = importlib.util.find_spec("ipywidgets") is not None
        return OutputKind.WIDGETS if has_widgets else OutputKind.NOTEBOOK
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return OutputKind.TERMINAL
    return OutputKind.LOG
