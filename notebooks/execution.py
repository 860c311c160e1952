"""Executes notebooks in a kernel of their own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

# A kernel that starts late, or an output that comes late, is no failure.
_LIMITS_S = {"timeout": 600, "startup_timeout": 600, "iopub_timeout": 600}


def execute(document: nbformat.NotebookNode, *, folder: Path | None = None) -> None:
    """Executes a notebook in place, in a folder (the current one without).

    The kernel is met at sockets in files: a port that was free when it was chosen may be taken
    by somebody else before the kernel has it, and then no kernel comes.
    """
    resources = {"metadata": {"path": str(folder)}} if folder else {}
    # Short, because the path of a socket may have no more than 107 bytes.
    with tempfile.TemporaryDirectory(dir="/tmp") as sockets:
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        NotebookClient(document, config=config, resources=resources, **_LIMITS_S).execute()
