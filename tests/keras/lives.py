"""Starts lives of Keras trainings and tells how each ended; loads no framework itself."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None and not os.environ.get("CI"),
    reason="TensorFlow is not installed",
)
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


def environment(**more: str) -> dict[str, str]:
    """Returns the environment of a child: few threads, no talk."""
    few = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "2", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **_QUIET, **few, **more}


def live(folder: Path, *plan: dict[str, Any], **more: str) -> bool:
    """Runs one life; returns whether it came to its end instead of being killed."""
    command = [sys.executable, "-m", "tests.keras.living", str(folder), json.dumps(plan)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(**more), capture_output=True, text=True, check=False
    )
    if done.returncode == -signal.SIGKILL:
        return False
    assert done.returncode == 0, done.stderr[-4000:]
    return True


def outcome(folder: Path, run: str) -> dict[str, Any]:
    """Returns what a run ended with."""
    found: dict[str, Any] = json.loads((folder / f"{run}.json").read_text())
    return found
