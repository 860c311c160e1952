"""Runs training in forked children that die by SIGKILL, and reads what they left."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # optimizers load it: once here, rather than in each child

import colabkit
import colabkit.fitting.fit_call  # loaded on use: three quarters of what a child would do
import colabkit.fitting.torch.fitting
import colabkit.runs.several_loop

with contextlib.suppress(ImportError):  # saving loads it, where it is
    import torch.utils.serialization.config


def forked(work: Callable[[], None], *, report: Path) -> int:
    """Starts ``work`` in a forked child that leads a group of its own; returns its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child uses one thread
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        gc.freeze()  # what the parent holds is not looked through, and its pages not copied
        os.setpgid(0, 0)
        torch.set_num_threads(1)
        work()
        code = 0
    except BaseException:
        report.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def reaped(child: int) -> int:
    """Waits for a child and ends what it left running; returns its status."""
    _, status = os.waitpid(child, 0)
    # A DataLoader's worker that starts while its parent is killed would wait forever.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return status


def in_child(work: Callable[[], None], *, report: Path) -> bool:
    """Runs ``work`` in a forked child; returns whether it came to its end."""
    status = reaped(forked(work, report=report))
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert status == 0, report.read_text() if report.exists() else status
    return True


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAtStep:
    """Dies in the middle of a step, after backward and before the next batch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == self.step:
            kill_self()
        if self.step % 4:
            run.flush()


class KillAtEpochEnd:
    """Dies after an epoch's validation, before its end is recorded."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        if epoch == self.epoch:
            kill_self()


def outcome(folder: Path, history: colabkit.History, target: Path) -> None:
    """Writes everything a run ended with, in a form that compares bitwise."""
    newest = colabkit.checkpoints(folder)[0]
    numbers = history.numbers()
    steps = {k: v.view(np.uint64).tolist() for k, v in numbers["steps"].items()}
    epochs = [{k: float(v).hex() for k, v in row.items()} for row in numbers["epochs"]]
    kept = {k: v for k, v in newest.hashes.items() if not k.startswith("run.")}
    target.write_text(
        json.dumps({"hashes": kept, "epochs": epochs, "steps": steps, "step": newest.step})
    )
