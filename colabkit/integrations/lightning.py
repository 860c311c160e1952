"""For Lightning's Trainer, by either name of its package."""

from __future__ import annotations

import importlib
import math
import sys
from typing import Any

from colabkit.runs import Watched

_name = "pytorch_lightning" if "pytorch_lightning" in sys.modules else "lightning.pytorch"
_callbacks: Any = importlib.import_module(f"{_name}.callbacks")


def checkpoints_in(kept: Any, **options: Any) -> Any:
    """Returns a ModelCheckpoint for a kept folder: ``kept.latest("*.ckpt")`` finds its newest."""
    return _callbacks.ModelCheckpoint(dirpath=kept / "checkpoints", save_last=True, **options)


class KeepCallback(_callbacks.Callback):
    """Shows the run, goes on in its W&B run, and saves each minute once the machine goes soon."""

    # It is not ended: Lightning would take the epoch under way for done.
    def __init__(self, kept: Any, **options: Any) -> None:
        self._kept, self._run = kept, Watched(kept, **options)

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        epochs, steps = max(trainer.max_epochs or 0, 0) or None, trainer.estimated_stepping_batches
        steps = int(steps) if math.isfinite(steps) else None
        self._run.begin(step=trainer.global_step, total_steps=steps, epochs=epochs)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self._run.due():
            self._run.update(trainer.global_step, trainer.current_epoch, trainer.callback_metrics)
            if self._run.wants_save():
                trainer.save_checkpoint(self._kept / "checkpoints" / "in-time.ckpt")

    def teardown(self, trainer: Any, *_: Any, **_more: Any) -> None:
        self._run.update(trainer.global_step, trainer.current_epoch, trainer.callback_metrics)
        self._run.end()

    on_exception = teardown
