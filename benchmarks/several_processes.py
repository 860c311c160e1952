"""The processes of a benchmark that trains in several, each the same module."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def start_all(module: str, count: int, target: Path) -> None:
    """Runs a module in so many processes that are to meet; ends this one where any fails.

    Args:
        module: The benchmark's name, as ``python -m`` takes it.
        count: How many.
        target: What each is given, where process 0 writes its figures.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = f"{free.getsockname()[1]}"
    job = {"WORLD_SIZE": f"{count}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(target)],
            env={**os.environ, **job, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"},
        )
        for rank in range(count)
    ]
    if sum(process.wait() for process in processes):
        sys.exit("A process of the benchmark has failed.")
