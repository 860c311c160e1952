"""The demo: training on handwritten digits, killed twice, and bit for bit what it would be.

``python -m colabkit demo`` runs it with PyTorch, ``--framework keras`` with Keras, on the
backend that ``--backend`` names. Each training runs in a process of its own; the parent kills it
with SIGKILL in the middle of an epoch, and then in the middle of a checkpoint write.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from colabkit.notebook import text_table
from colabkit.runtime import start_program

_BACKENDS = ("tensorflow", "jax")
# Without its greetings, and on the CPU: on a GPU it may add in any order.
_OF_KERAS = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "JAX_PLATFORMS": "cpu",
}
_EPOCHS = 20
_ACCURACY_WANTED = 0.97
_POLL_S = 0.0005
_CHILD_TIMEOUT_S = 1800.0


@dataclasses.dataclass(frozen=True, slots=True)
class Training:
    """What every session of the demo trains, and for how many epochs in all."""

    framework: str
    epochs: int
    backend: str = "tensorflow"

    @property
    def needs(self) -> dict[str, str]:
        """What it imports, and the package that brings each."""
        of_framework = ("torch",) if self.framework == "torch" else ("keras", self.backend)
        return {**{name: name for name in of_framework}, "sklearn": "scikit-learn"}

    def environment(self) -> dict[str, str]:
        """The environment of its sessions."""
        if self.framework == "torch":
            return dict(os.environ)
        return {**os.environ, **_OF_KERAS, "KERAS_BACKEND": self.backend}


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """What one training process did.

    Attributes:
        name: What the table calls it.
        steps_lost: Steps done after the checkpoint that the next session resumed from.
        resume_s: From the call of ``fit`` to the first new step.
        waited_s: Time the training thread was held by checkpoints.
        accuracy: Share of the held-out digits recognised, None for a killed session.
    """

    name: str
    steps_lost: int | None = None
    resume_s: float | None = None
    waited_s: float | None = None
    accuracy: float | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo.

    Args:
        argv: Arguments after ``demo``.

    Returns:
        0 when the killed run ended with the same bits and enough digits recognised, else 1.
    """
    parser = argparse.ArgumentParser(prog="colabkit demo", description="Kill, resume, compare.")
    parser.add_argument("--framework", choices=["torch", "keras"], default="torch")
    parser.add_argument("--backend", choices=_BACKENDS, default="tensorflow")
    parser.add_argument("--epochs", type=int, default=_EPOCHS, help=argparse.SUPPRESS)
    parser.add_argument("--child", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    training = Training(options.framework, options.epochs, options.backend)
    missing = [
        package
        for name, package in training.needs.items()
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        # Not the extras: under colabkit's name the public index has an unrelated project.
        print(f"The demo needs {' and '.join(missing)}. Run: pip install {' '.join(missing)}")
        return 1
    if options.child:
        _train(Path(options.child), training)
        return 0
    with tempfile.TemporaryDirectory(prefix="colabkit-demo-") as scratch:
        return _compare(Path(scratch), training)


def _compare(scratch: Path, training: Training) -> int:
    print("Training on 1,437 of scikit-learn's 1,797 handwritten digits, left alone ...")
    alone = _finish(scratch / "alone", "left alone", training)
    print("The same, killed in the middle of an epoch and of a checkpoint write ...")
    killed = scratch / "killed"
    first = _kill(killed, "killed in mid-epoch", training, _mid_epoch(killed))
    second = _kill(killed, "killed in mid-write", training, _mid_write(killed))
    last = _finish(killed, "resumed to the end", training)
    same = _result(killed)["hashes"] == _result(scratch / "alone")["hashes"]
    enough = (last.accuracy or 0.0) >= _ACCURACY_WANTED
    print()
    print(_table([alone, first, second, last]))
    print()
    print(f"Final weights bitwise those of the run left alone: {'yes' if same else 'NO'}")
    wanted = f"(at least {_ACCURACY_WANTED:.0%} wanted)"
    print(f"Held-out digits recognised: {last.accuracy or 0.0:.1%} {wanted}")
    return 0 if same and enough else 1


def _table(sessions: Sequence[Session]) -> str:
    def words(value: float | None, form: str) -> str | None:
        return None if value is None else format(value, form)

    rows = [
        {
            "session": session.name,
            "steps lost": session.steps_lost,
            "seconds to resume": words(session.resume_s, ".3f"),
            "seconds waited for checkpoints": words(session.waited_s, ".3f"),
            "held-out accuracy": words(session.accuracy, ".1%"),
        }
        for session in sessions
    ]
    return text_table(rows, columns=list(rows[0]))


# The parent: starts sessions, kills them, and reads what they wrote.


def _start(folder: Path, training: Training) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    words = ["--framework", training.framework, "--epochs", str(training.epochs)]
    words += ["--backend", training.backend]
    command = [sys.executable, "-m", "colabkit.demo", *words, "--child", str(folder)]
    return start_program(command, env=training.environment())


def _finish(folder: Path, name: str, training: Training) -> Session:
    code = _start(folder, training).wait(_CHILD_TIMEOUT_S)
    if code:
        message = f"the training process ended with status {code}"
        raise SystemExit(message)
    result = _result(folder)
    return Session(
        name=name,
        resume_s=result["resume_s"],
        waited_s=result["waited_s"],
        accuracy=result["accuracy"],
    )


def _kill(folder: Path, name: str, training: Training, is_time: Callable[[], bool]) -> Session:
    child = _start(folder, training)
    until_s = time.monotonic() + _CHILD_TIMEOUT_S
    while child.poll() is None and not is_time():
        if time.monotonic() > until_s:
            break
        time.sleep(_POLL_S)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    if child.wait() != -signal.SIGKILL:
        message = "the training process ended before it could be killed"
        raise SystemExit(message)
    reached = _progress(folder)
    return Session(name=name, steps_lost=max(0, reached["step"] - _newest_step(folder)))


def _mid_epoch(folder: Path) -> Callable[[], bool]:
    return lambda: _progress(folder)["step"] >= 230  # in the sixth epoch


def _mid_write(folder: Path) -> Callable[[], bool]:
    """Says when a file is being written aside, some epochs on."""
    begun = _newest_step(folder)

    def is_time() -> bool:
        if _progress(folder)["step"] < begun + 150:
            return False
        return any((folder / "run" / "shards").glob(".colabkit-tmp-*"))

    return is_time


def _newest_step(folder: Path) -> int:
    from colabkit.runs import checkpoints  # frameworks are loaded late

    found = [info.step for info in checkpoints(folder / "run") if not info.problem]
    return max(found, default=0)


def _progress(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((folder / "progress.json").read_text())
        return found
    return {"step": 0}


def _result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


# The child: one training session.


def _train(folder: Path, training: Training) -> None:
    if training.framework == "keras":
        from colabkit.demo_keras import train  # needs Keras and scikit-learn
    else:
        from colabkit.demo_torch import train  # needs torch and scikit-learn

    train(folder, epochs=training.epochs)


if __name__ == "__main__":
    sys.exit(main())
