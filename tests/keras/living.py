"""One life of a Keras training: a process that trains, and dies by SIGKILL where it is told to.

``python -m tests.keras.living FOLDER PLAN`` does what the JSON plan lists, in turn.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAtStep:
    """Dies after a step, before the next batch; every other time its saves are waited for."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step >= self.step:
            kill_self()
        if self.step % 2:
            run.flush()


class KillAtEpochEnd:
    """Dies after an epoch's validation, before its end is recorded."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        if epoch == self.epoch:
            kill_self()


def train(name: str, folder: Path, callbacks: list[Any], **options: Any) -> dict[str, Any]:
    """Trains a case, and returns everything it ended with in a form that compares bitwise."""
    import colabkit
    from tests.keras.cases import arguments

    made = arguments(name)
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
        callbacks: list[Any] = []
        if "kill_at_step" in part:
            callbacks = [KillAtStep(part["kill_at_step"])]
        if "kill_at_epoch_end" in part:
            callbacks = [KillAtEpochEnd(part["kill_at_epoch_end"])]
        every = {"save_every": part["save_every"]} if "save_every" in part else {}
        ended = train(part["case"], folder / part["run"], callbacks, **every)
        (folder / f"{part['run']}.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
