"""Several processes that train together, forked from a warm parent; they meet over a file."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist
import torch.nn.parallel  # noqa: F401  # once here, rather than in each child

from tests.torch.killing import forked, reaped

WAIT_S = 600


def together(
    work: Callable[[int], None], count: int, folder: Path, *, by_environment: bool = False
) -> list[int]:
    """Runs ``work(rank)`` in so many processes; returns the status of each.

    The first one's end ends those that are stopped. What a process that failed has to say is in
    ``failure(folder, rank)``.
    """
    children = begun(work, count, folder, by_environment=by_environment)
    statuses = [reaped(children[0])]
    for child in children[1:]:
        if is_stopped(child):
            os.kill(child, signal.SIGKILL)
        statuses.append(reaped(child))
    return statuses


def begun(
    work: Callable[[int], None], count: int, folder: Path, *, by_environment: bool = False
) -> list[int]:
    """Has ``work(rank)`` begin in so many processes; returns their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meeting").unlink(missing_ok=True)
    port = f"{free_port()}"

    def joined(rank: int) -> Callable[[], None]:
        def run() -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not that of a test's own time-out
            signal.alarm(WAIT_S)
            if by_environment:
                own = {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{count}"}
                os.environ.update(own, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            elif count > 1:
                store = dist.FileStore(str(folder / "meeting"), count)
                dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
            work(rank)

        return run

    reports = [folder / f"failure-{rank}" for rank in range(count)]
    for report in reports:
        report.unlink(missing_ok=True)
    return [forked(joined(rank), report=report) for rank, report in enumerate(reports)]


def is_stopped(child: int) -> bool:
    """Waits until a process ends or is stopped; returns which."""
    became = os.waitid(os.P_PID, child, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return became is not None and became.si_code == os.CLD_STOPPED


def free_port() -> int:
    """Returns a free port below those that the kernel chooses, so that it gives it nobody else."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def failure(folder: Path, rank: int) -> str:
    report = folder / f"failure-{rank}"
    return report.read_text() if report.exists() else ""


def came_through(
    work: Callable[[int], None], count: int, folder: Path, *, by_environment: bool = False
) -> None:
    """Runs ``work`` in so many processes, each of which must come to its end."""
    statuses = together(work, count, folder, by_environment=by_environment)
    said = "\n".join(failure(folder, rank) for rank in range(count))
    assert statuses == [0] * count, f"{statuses}\n{said}"


def killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
