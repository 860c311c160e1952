"""Lives of objects that no fork survives, TensorFlow's for example: in an interpreter of their own.

It is started once, imports what trains and runs none of it. For each life it forks a child, which
makes the objects from what was pickled, or calls the function that makes them.

``python -m colabkit.fitting.started_lives FOLDER IMPORT...`` reads an order on each line of its
input: JSON with ``folder`` and ``kill_at``; it answers with the child's status.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import psutil

from colabkit.errors import ArgumentError, MissingPackageError
from colabkit.fitting.proof_lives import Trial, check_ended, forked, seed_all
from colabkit.runtime import start_program

_TRIAL, _SAID = "trial.pickle", "said.txt"
_WAY_ON = (
    "pass a function that makes all of it, by the names of fit's arguments:"
    " verify_resume(make), where make() returns dict(model=model, data=data, callbacks=[...])."
)


class StartedLives:
    """An interpreter that forks one life after another.

    Args:
        trial: What they train.
        scratch: A folder for what is handed to them and what they report.

    Raises:
        ArgumentError: The objects cannot be handed over.
        MissingPackageError: cloudpickle is not installed.
    """

    def __init__(self, trial: Trial, scratch: Path) -> None:
        self._scratch = scratch
        (scratch / _TRIAL).write_bytes(_pickled(trial))
        self._parent = start_program(
            [sys.executable, "-m", __name__, str(scratch), *_imports()],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def live(self, folder: Path, kill_at: int | None = None) -> None:
        """Has it fork a life, and waits for its end."""
        order = json.dumps({"folder": str(folder), "kill_at": kill_at})
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            assert self._parent.stdin is not None  # noqa: S101  # asked for above
            assert self._parent.stdout is not None  # noqa: S101  # asked for above
            self._parent.stdin.write(order + "\n")
            self._parent.stdin.flush()
            answer = self._parent.stdout.readline()
        if not answer:
            message = f"The process that was to train ended with {self._parent.wait()}."
            raise ArgumentError(message, argument="model", hint=_WAY_ON.capitalize())
        check_ended(
            int(answer),
            self._scratch,
            is_killed=kill_at is not None,
            hint=f"Make fit run first. Where it does: {_WAY_ON}",
        )

    def close(self) -> None:
        """Ends it, and a life that is still under way."""
        if self._parent.poll() is None:
            for each in psutil.Process(self._parent.pid).children(recursive=True):
                each.kill()
        self._parent.terminate()
        self._parent.communicate()


def _pickled(trial: Trial) -> bytes:
    try:
        import cloudpickle  # imported on use
    except ModuleNotFoundError as error:
        message = "verify_resume hands models of Keras to another process by cloudpickle."
        hint = "Run: pip install cloudpickle"
        raise MissingPackageError(message, package="cloudpickle", hint=hint) from error
    try:
        made: bytes = cloudpickle.dumps(trial)
    except Exception as error:  # whatever an object's own pickling raises
        message = f"What was passed cannot be handed to another process: {error}"
        raise ArgumentError(message, argument="data", hint=_WAY_ON.capitalize()) from error
    return made


def _environment() -> dict[str, str]:
    """Returns that of a process that forks: no threads from libraries, and no GPU."""
    few = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    made = {**os.environ, **few, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    made["PYTHONPATH"] = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    if (keras := sys.modules.get("keras")) is not None:
        made["KERAS_BACKEND"] = keras.backend.backend()
    return made


def _imports() -> list[str]:
    """Returns what every life needs, and takes seconds to load."""
    if (keras := sys.modules.get("keras")) is not None:
        return [keras.backend.backend(), "colabkit.fitting.keras"]
    return ["colabkit.fitting.torch"] if "torch" in sys.modules else []


def _train(scratch: Path, folder: Path, kill_at: int | None) -> None:
    with (scratch / _SAID).open("w") as said:
        os.dup2(said.fileno(), 1)
    seed_all(0)  # what has no seed of its own takes one as it is made again
    try:
        trial: Trial = pickle.loads((scratch / _TRIAL).read_bytes())  # noqa: S301  # our own
    except Exception as error:
        message = f"What was passed cannot be made again in another process: {error}"
        raise ArgumentError(message, argument="model", hint=_WAY_ON.capitalize()) from error
    trial.train(folder, kill_at)


def main() -> None:
    """Forks a life for each order."""
    scratch, *imports = sys.argv[1:]
    for name in imports:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        train = functools.partial(_train, Path(scratch), Path(order["folder"]), order["kill_at"])
        sys.stdout.write(f"{forked(train, Path(scratch))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
