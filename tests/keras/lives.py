"""Orders lives of Keras trainings and tells how each ended; loads no framework itself."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.abilities import newer_package, package

ROOT = Path(__file__).parents[2]
# Collections of garbage would take a quarter of the time in which a parent loads what it needs.
BEGIN = "import gc; gc.disable(); from tests.keras.warm_process import main; main()"
needs_keras = pytest.mark.needs(package("keras", "tensorflow"))
needs_jax = pytest.mark.needs(newer_package("jax", "optax", "flax", "keras"))


def environment(backend: str) -> dict[str, str]:
    """Returns the environment of a child: few threads, no talk, no GPU."""
    return {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


class WarmProcess:
    """A warm parent of lives on one backend; a context manager.

    Args:
        backend: Of Keras, "tensorflow", "torch" or "jax".
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        # What JAX compiles in one life, the next ones read: half of what they would take.
        self._compiled = tempfile.TemporaryDirectory(prefix="compiled-")
        self._parent: subprocess.Popen[str] | None = self._started()

    def __enter__(self) -> WarmProcess:
        return self

    def live(self, folder: Path, *plan: dict[str, Any], kill_after_s: float | None = None) -> bool:
        """Trains as planned; returns whether the life came to its end instead of being killed."""
        order = {"folder": str(folder), "plan": plan, "kill_after_s": kill_after_s}
        status = self._status(order)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return False
        assert status == 0, _said(folder)
        return True

    def check(
        self, folder: Path, *, module: str, path: list[str], parameters: dict[str, Any]
    ) -> None:
        """Runs the body of a test, by its name."""
        test = {"module": module, "path": path, "parameters": pickle.dumps(parameters).hex()}
        assert self._status({"folder": str(folder), "test": test}) == 0, _said(folder)

    def _status(self, order: dict[str, Any]) -> int:
        parent = self._parent = self._parent or self._started()
        assert parent.stdin is not None
        assert parent.stdout is not None
        try:
            parent.stdin.write(json.dumps(order) + "\n")
            parent.stdin.flush()
            return int(parent.stdout.readline())
        except BaseException:
            # A life that a time limit gave up on would answer the next order with its own status.
            self._parent = None
            os.killpg(parent.pid, signal.SIGKILL)
            parent.communicate()
            raise

    def _started(self) -> subprocess.Popen[str]:
        parent = subprocess.Popen(
            [sys.executable, "-c", BEGIN],
            cwd=ROOT,
            env={
                **environment(self._backend),
                "JAX_COMPILATION_CACHE_DIR": self._compiled.name,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # so that its lives can be ended with it
        )
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        return parent

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._parent is not None:
            self._parent.communicate()
        self._compiled.cleanup()


def _said(folder: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(folder.glob("*.txt")))


def outcome(folder: Path, run: str) -> dict[str, Any]:
    """Returns what a run ended with."""
    found: dict[str, Any] = json.loads((folder / f"{run}.json").read_text())
    return found
