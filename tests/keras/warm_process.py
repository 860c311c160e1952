"""Forks one life after another from a parent that has imported everything and run nothing.

``main`` reads an order on each line of the process' input: JSON with
``folder``, and either ``plan`` and ``kill_after_s`` or ``test``; it answers with a status.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import pickle
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.keras import living


def forked(folder: Path, work: Callable[[], None]) -> int:
    # Frameworks start their threads at the first operation: until then a fork is whole.
    assert len(list(Path("/proc/self/task").iterdir())) == 1
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with (folder / "said.txt").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        work()
        code = 0
    except BaseException:
        (folder / "error.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def killed_after(child: int, seconds: float) -> None:
    """Waits for the child's end, and kills it when that takes longer."""
    handle = os.pidfd_open(child)
    try:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.poll(1000 * seconds)
        os.kill(child, signal.SIGKILL)
    finally:
        os.close(handle)


def run_test(folder: Path, test: dict[str, Any]) -> None:
    found: Any = importlib.import_module(test["module"])
    for name in test["path"]:
        found = getattr(found, name)
        found = found() if isinstance(found, type) else found
    found(tmp_path=folder, **pickle.loads(bytes.fromhex(test["parameters"])))


def work_of(folder: Path, order: dict[str, Any]) -> Callable[[], None]:
    if "test" in order:
        return functools.partial(run_test, folder, order["test"])
    return functools.partial(living.main, folder, order["plan"])


def load_frameworks() -> None:
    """Loads what any life needs in its first seconds: once here, rather than in each."""
    import tensorflow as tf  # on any backend, Keras asks it when a seed is set

    assert tf is not None
    if os.environ["KERAS_BACKEND"] == "jax":
        import flax
        import optax

        assert flax is not None
        assert optax is not None
        return
    import torch
    import torch._dynamo

    from colabkit.frameworks.torch import map_feed

    assert map_feed is not None
    torch.set_num_threads(1)


def main() -> None:
    living.cases()
    assert pytest is not None
    load_frameworks()
    # Each collection in a life would look through all that is loaded here, and copy its pages.
    gc.collect()
    gc.freeze()
    gc.enable()
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        folder = Path(order["folder"])
        child = forked(folder, work_of(folder, order))
        if order.get("kill_after_s") is not None:
            killed_after(child, order["kill_after_s"])
        _, status = os.waitpid(child, 0)
        print(status, flush=True)
