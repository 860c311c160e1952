"""One life of a Keras training, which dies by SIGKILL where it is told to."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import colabkit
from colabkit.fitting import keras as fitting_keras  # loaded once in the parent of all lives
from tests.keras import notebooks
from tests.keras.cases import BATCH, CASES, EPOCHS

assert fitting_keras is not None


def cases() -> dict[str, Callable[[], dict[str, Any]]]:
    """Returns the cases that the backend has."""
    if keras.backend.backend() == "torch":
        from colabkit.fitting.keras import torch_epoch_dataset
        from colabkit.frameworks import torch as frameworks_torch
        from tests.keras.torch_cases import TORCH_CASES

        assert torch_epoch_dataset is not None
        assert frameworks_torch is not None
        return {**CASES, **TORCH_CASES}
    if keras.backend.backend() == "jax":
        from colabkit.fitting.keras import jax_epoch_batches, jax_steps
        from colabkit.frameworks import jax as frameworks_jax
        from tests.jax import loops, state_loops
        from tests.keras.jax_cases import JAX_CASES

        assert jax_epoch_batches is not None
        assert jax_steps is not None
        assert loops is not None
        assert state_loops is not None
        assert frameworks_jax is not None
        return {**CASES, **JAX_CASES}
    from colabkit.fitting.keras import tf_end, tf_epoch_dataset
    from colabkit.frameworks.keras import backend
    from tests.keras import around, loop_cases
    from tests.keras.tf_cases import TENSORFLOW_CASES

    assert around is not None
    assert loop_cases is not None
    assert backend is not None
    assert tf_end is not None
    assert tf_epoch_dataset is not None
    return {**CASES, **TENSORFLOW_CASES}


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAtStep:
    """Dies after a step, before the next batch; every other time its saves are waited for."""

    def __init__(self, step: int, *, waits: bool) -> None:
        self.step = step
        self.waits = waits

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if self.waits:
            run.flush()
        if step >= self.step:
            kill_self()


class KillAtEpochEnd:
    """Dies after an epoch's validation, with all steps saved, before its end is recorded."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        run.flush()  # a step that ends while a save is under way is not saved

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        if epoch == self.epoch:
            run.flush()
            kill_self()


def train(name: str, folder: Path, callbacks: list[Any], **options: Any) -> dict[str, Any]:
    """Trains a case, and returns everything it ended with in a form that compares bitwise."""
    made = {"epochs": EPOCHS, "batch_size": BATCH, "progress": False, **cases()[name]()}
    model, data = made.pop("model"), made.pop("data")
    callbacks = [*made.pop("callbacks", []), *callbacks]
    history = colabkit.fit(model, data, folder, callbacks=callbacks, **{**made, **options})
    newest = colabkit.checkpoints(folder)[0]
    numbers = history.numbers()
    return {
        "hashes": {k: v for k, v in newest.hashes.items() if not k.startswith("run.")},
        "epochs": [{k: float(v).hex() for k, v in row.items()} for row in numbers["epochs"]],
        "steps": {k: v.view(np.uint64).tolist() for k, v in numbers["steps"].items()},
        "step": newest.step,
        "verdict": str(history.verdict),
    }


def main(folder: Path, plan: list[dict[str, Any]]) -> None:
    for part in plan:
        # Each begins as a session does: before 3.13, Keras' seeding leaves its default generator
        # where the part before has drawn it to.
        keras.utils.clear_session()
        if "notebook" in part:
            notebooks.run(folder, part)
            continue
        callbacks: list[Any] = []
        if "kill_at_step" in part:
            step = part["kill_at_step"]
            callbacks = [KillAtStep(step, waits=part.get("waits", step % 2 == 1))]
        if "kill_at_epoch_end" in part:
            callbacks = [KillAtEpochEnd(part["kill_at_epoch_end"])]
        if "around" in part:
            from tests.keras import around

            run_of: Callable[..., Any] = lambda **_: around.PlainLoop()  # noqa: E731
            if part["around"] != "plain":
                kill_at = part.get("kill_at_step")
                run_of = around.dying_run(folder / part["around"], kill_at, kill_self)
            ended = around.around(run_of)
            (folder / f"{part['around']}.json").write_text(json.dumps(ended))
            continue
        if "loop" in part:
            if keras.backend.backend() == "jax":
                from tests.jax.loops import loop
            else:
                from tests.keras.loop_cases import loop
            ended = loop(part["loop"], folder / part["run"], part.get("kill_at_step"), kill_self)
            (folder / f"{part['run']}.json").write_text(json.dumps(ended))
            continue
        every = {"save_every": part["save_every"]} if "save_every" in part else {}
        ended = train(part["case"], folder / part["run"], callbacks, **every)
        (folder / f"{part['run']}.json").write_text(json.dumps(ended))
