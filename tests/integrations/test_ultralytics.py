"""YOLO's callbacks by their contract: ``add_callback(event, function)``, called with the trainer.

The events and their order are those of its trainer: on_train_start, then in each epoch
on_model_save and on_fit_epoch_end, then on_train_end.
"""

from __future__ import annotations

import collections
import types

import pytest

from colabkit.integrations.ultralytics import watch
from colabkit.runtime import SessionClock


class Kept:
    def __init__(self, path) -> None:
        self.path, self.flushed_at = path, []
        self.trainer = None

    def __fspath__(self) -> str:
        return str(self.path)

    def flush(self) -> None:
        self.flushed_at.append(self.trainer.epoch)


class Yolo:
    def __init__(self) -> None:
        self.callbacks = collections.defaultdict(list)

    def add_callback(self, event, function) -> None:
        self.callbacks[event].append(function)

    def train(self, kept, epochs: int) -> None:
        trainer = types.SimpleNamespace(start_epoch=0, epochs=epochs, epoch=0, stop=False)
        kept.trainer = trainer
        self._run("on_train_start", trainer)
        for trainer.epoch in range(epochs):
            trainer.metrics = {"metrics/mAP50(B)": 0.1 * trainer.epoch, "fitness": 0.5}
            self._run("on_model_save", trainer)
            self._run("on_fit_epoch_end", trainer)
        assert not trainer.stop
        self._run("on_train_end", trainer)

    def _run(self, event, trainer) -> None:
        for function in self.callbacks[event]:
            function(trainer)


@pytest.mark.parametrize("goes_soon", [True, False])
def test_each_save_is_waited_for_once_the_machine_goes_soon(
    goes_soon, going_soon, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    session = going_soon if goes_soon else SessionClock(0.0, None)
    yolo, kept = Yolo(), Kept(tmp_path)
    watch(yolo, kept, session=session)
    yolo.train(kept, 3)
    assert kept.flushed_at == ([0, 1, 2, 2] if goes_soon else [])
