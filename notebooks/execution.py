"""Executes notebooks in a kernel of their own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config


def execute(document: nbformat.NotebookNode, *, folder: Path | None = None) -> None:
    """Executes a notebook in place, in a folder (the current one without).

    The kernel is met at sockets in files: a port that was free when it was chosen may be taken
    by somebody else before the kernel has it, and then no kernel comes.
    """
    resources = {"metadata": {"path": str(folder)}} if folder else {}
    with tempfile.TemporaryDirectory() as sockets:
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        NotebookClient(document, config=config, timeout=600, resources=resources).execute()
