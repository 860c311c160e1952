"""verify_resume: kills and resumes a short run of the user's own, and compares bits."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from colabkit.errors import ArgumentError, ResumeProofError
from colabkit.fitting.proof_lives import ForkedLives, Lives, Trial, is_function
from colabkit.fitting.started_lives import StartedLives
from colabkit.frameworks.detect import KERAS, framework_of
from colabkit.frameworks.processes import require_one_process
from colabkit.runs.checks import require_count
from colabkit.runs.inspect import checkpoints


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


def verify_resume(
    model: Any,
    data: Any = None,
    *,
    epochs: int = 2,
    kills: int = 3,
    seed: int = 0,
    **fit_arguments: Any,
) -> ResumeProof:
    """Proves on your own model and data that a killed run ends with the same bits.

    Short runs are made in child processes on the CPU, in a temporary folder: one left
    alone, and one killed with SIGKILL at random steps and resumed. Your model, data and
    folders are not touched. Take a small part of the data, or few epochs.

    Args:
        model: The module to train, as for ``fit``; a compiled ``keras.Model``; or a function
            without arguments that returns it, or a dict of arguments of ``fit``: model, data,
            callbacks, ... Each process calls it anew, as a notebook's cells run anew. ``tf.data``
            pipelines, generators and classes of your own in a Keras model need such a function.
        data: The data, as for ``fit``, unless that function makes it.
        epochs: Passes over the data.
        kills: How often to kill; at most once for each step after the first.
        seed: Chooses the steps at which to kill, and seeds the run.
        fit_arguments: Any other argument of ``fit``.

    Returns:
        The proof: exact or not, and which tensors differ.

    Raises:
        ArgumentError: This machine cannot fork, a Keras model or its data cannot be handed to
            another process, the run fails by itself, or it is too short to be killed.
        MissingPackageError: For Keras, or a function: cloudpickle is not installed.

    Example:
        >>> import torch, colabkit
        >>> data = (torch.randn(64, 4), torch.randint(0, 3, (64,)))
        >>> colabkit.verify_resume(torch.nn.Linear(4, 3), data, kills=1).exact
        True
    """
    require_one_process("verify_resume")
    if not hasattr(os, "fork"):
        message = "verify_resume needs a system that can fork; this one cannot."
        raise ArgumentError(message, argument="model", hint="Run it on Colab, Linux or macOS.")
    require_count("kills", kills)
    trial = Trial(model, data, {**fit_arguments, "epochs": epochs}, seed)
    scratch = Path(tempfile.mkdtemp(prefix="colabkit-proof-"))
    try:
        # A fork does not survive what TensorFlow has started by now.
        is_forked = not is_function(model) and framework_of([model]) is not KERAS
        lives: Lives = (ForkedLives if is_forked else StartedLives)(trial, scratch)
        with contextlib.closing(lives):
            return _proven(lives, scratch, random.Random(seed), kills)  # noqa: S311  # no secret
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _proven(lives: Lives, scratch: Path, chooser: random.Random, kills: int) -> ResumeProof:
    alone, killed = scratch / "alone", scratch / "killed"
    lives.live(alone)
    steps = checkpoints(alone)[0].step
    if steps < 2:
        message = "The run has 1 step, which leaves none to kill it at."
        raise ArgumentError(message, argument="epochs", hint="Take more epochs, or more data.")
    places = sorted(chooser.sample(range(2, steps + 1), min(kills, steps - 1)))
    for place in places:
        lives.live(killed, place)
    lives.live(killed)
    differing = _differing(alone, killed)
    return ResumeProof(not differing, len(places), steps, differing)


def _differing(one: Path, other: Path) -> tuple[str, ...]:
    first, second = (checkpoints(folder)[0].hashes for folder in (one, other))
    names = sorted(first.keys() | second.keys())
    return tuple(name for name in names if first.get(name) != second.get(name))
