"""verify_resume: kills and resumes a short run of the user's own, and compares bits."""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colabkit.errors import ArgumentError, ColabKitError, ResumeProofError
from colabkit.fitting.fit_call import fit
from colabkit.frameworks.detect import KERAS, framework_of
from colabkit.runs.checks import require_count
from colabkit.runs.inspect import checkpoints

_ATTEMPTS_MAX = 50


@dataclasses.dataclass(frozen=True, slots=True)
class ResumeProof:
    """What killing and resuming showed.

    Attributes:
        exact: Whether the killed run ended with the same bits as the one left alone.
        kills: How often it was killed.
        steps: Steps of the run.
        differences: Names of the tensors that differ, empty when exact.
    """

    exact: bool
    kills: int
    steps: int
    differences: tuple[str, ...] = ()

    def raise_if_different(self) -> None:
        """Raises ResumeProofError when the bits differ."""
        if not self.exact:
            message = f"After {self.kills} kills, {len(self.differences)} tensors differ."
            raise ResumeProofError(
                message,
                tensors=self.differences,
                hint="history.verdict names the likely reason: fit the run once and read it.",
            )


class _KillAt:
    """Ends the process without a word at one step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        del logs
        # Each save is waited for, so that the kill is followed by a resume, not a new start.
        run.flush()
        if step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


def verify_resume(
    model: Any, data: Any, *, epochs: int = 2, kills: int = 3, seed: int = 0, **fit_arguments: Any
) -> ResumeProof:
    """Proves on your own model and data that a killed run ends with the same bits.

    Short runs are made in child processes on the CPU, in a temporary folder: one left
    alone, and one killed with SIGKILL at random steps and resumed. Your model, data and
    folders are not touched. Take a small part of the data, or few epochs.

    Args:
        model: The module to train, as for ``fit``.
        data: The data, as for ``fit``.
        epochs: Passes over the data.
        kills: How often to kill; at most once for each step after the first.
        seed: Chooses the steps at which to kill, and seeds the run.
        fit_arguments: Any other argument of ``fit``.

    Returns:
        The proof: exact or not, and which tensors differ.

    Raises:
        ArgumentError: This machine cannot fork, the model is of Keras, the run fails by itself,
            or it is too short to be killed.

    Example:
        >>> import torch, colabkit
        >>> data = (torch.randn(64, 4), torch.randint(0, 3, (64,)))
        >>> colabkit.verify_resume(torch.nn.Linear(4, 3), data, kills=1).exact
        True
    """
    if framework_of([model]) is KERAS:
        message = "verify_resume forks this process, which a model of Keras does not survive."
        hint = (
            "Interrupt a short fit and run it again, run one alone into another folder, and"
            " compare the hashes of colabkit.checkpoints(folder)[0]."
        )
        raise ArgumentError(message, argument="model", hint=hint)
    if not hasattr(os, "fork"):
        message = "verify_resume needs a system that can fork; this one cannot."
        raise ArgumentError(message, argument="model", hint="Run it on Colab, Linux or macOS.")
    require_count("kills", kills)
    callbacks = tuple(fit_arguments.pop("callbacks", ()))
    fixed: dict[str, Any] = {"device": "cpu", "seed": seed, "epochs": epochs, "progress": False}

    def run(folder: Path, killer: tuple[Any, ...], **changed: Any) -> None:
        every = (*callbacks, *killer)
        fit(model, data, folder, callbacks=every, **{**fit_arguments, **fixed, **changed})

    scratch = Path(tempfile.mkdtemp(prefix="colabkit-proof-"))
    try:
        _in_child(lambda: run(scratch / "alone", ()), scratch)
        steps = checkpoints(scratch / "alone")[0].step
        if steps < 2:
            message = "The run has 1 step, which leaves none to kill it at."
            raise ArgumentError(message, argument="epochs", hint="Take more epochs, or more data.")
        chooser = random.Random(seed)  # noqa: S311  # chooses steps, guards nothing
        places = sorted(chooser.sample(range(2, steps + 1), min(kills, steps - 1)))
        for place in places:
            killer = (_KillAt(place),)
            _in_child(functools.partial(run, scratch / "killed", killer, save_every=1), scratch)
        _in_child(lambda: run(scratch / "killed", ()), scratch)
        differing = _differing(scratch / "alone", scratch / "killed")
        return ResumeProof(not differing, len(places), steps, differing)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _in_child(work: Callable[[], None], scratch: Path) -> None:
    """Runs in a forked child; a death by SIGKILL is what was wanted, an error is not."""
    sys.stdout.flush()
    sys.stderr.flush()
    report = scratch / "error.txt"
    child = os.fork()
    if child == 0:
        _work_and_exit(work, report)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return
    if status:
        said = report.read_text() if report.exists() else f"exit status {status}"
        message = f"The run fails by itself, without any kill: {said.strip()}"
        raise ArgumentError(message, argument="data", hint="Make fit run first.")


def _work_and_exit(work: Callable[[], None], report: Path) -> None:
    import torch  # imported on use

    # A forked child has none of its parent's worker threads.
    torch.set_num_threads(1)
    code = 1
    try:
        work()
        code = 0
    except ColabKitError as error:
        report.write_text(str(error))
    except BaseException:
        report.write_text(traceback.format_exc(limit=-3))
        raise
    finally:
        os._exit(code)


def _differing(one: Path, other: Path) -> tuple[str, ...]:
    first, second = (checkpoints(folder)[0].hashes for folder in (one, other))
    names = sorted(first.keys() | second.keys())
    return tuple(name for name in names if first.get(name) != second.get(name))
