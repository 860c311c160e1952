"""Several processes that train together, forked from a warm parent; they meet over a file."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist
import torch.nn.parallel  # noqa: F401  # once here, rather than in each child

from tests.torch.killing import forked, reaped

WAIT_S = 60


def together(work: Callable[[int], None], count: int, folder: Path) -> list[int]:
    """Runs ``work(rank)`` in so many processes; returns the status of each.

    What a process that failed has to say is in ``failure(folder, rank)``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)

    def joined(rank: int) -> Callable[[], None]:
        def run() -> None:
            signal.alarm(WAIT_S)
            if count > 1:
                store = dist.FileStore(str(meeting), count)
                dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
            work(rank)

        return run

    reports = [folder / f"failure-{rank}" for rank in range(count)]
    for report in reports:
        report.unlink(missing_ok=True)
    children = [forked(joined(rank), report=report) for rank, report in enumerate(reports)]
    return [reaped(child) for child in children]


def failure(folder: Path, rank: int) -> str:
    report = folder / f"failure-{rank}"
    return report.read_text() if report.exists() else ""


def came_through(work: Callable[[int], None], count: int, folder: Path) -> None:
    """Runs ``work`` in so many processes, each of which must come to its end."""
    statuses = together(work, count, folder)
    said = "\n".join(failure(folder, rank) for rank in range(count))
    assert statuses == [0] * count, f"{statuses}\n{said}"


def killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
