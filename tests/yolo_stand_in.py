"""What Ultralytics' YOLO does to its folder and to its callbacks, without its packages.

It stands as ``ultralytics`` on a machine of the double. Of the real one it keeps: the order of
``on_train_start``, ``on_model_save``, ``on_fit_epoch_end``, ``on_train_end``; ``results.csv`` and
``weights/last.pt`` after each epoch; that ``resume=True`` goes on in the folder that ``last.pt``
names; and that the optimizer is taken out of it at the end, after which nothing can go on.
"""

from __future__ import annotations

import collections
import json
import time
import types
from pathlib import Path

# Keep takes a folder that has rested for two seconds.
EPOCH_S, STEPS = 2.5, 25


class YOLO:
    def __init__(self, model: str) -> None:
        self._file = Path(model)
        self._callbacks = collections.defaultdict(list)

    def add_callback(self, event, function) -> None:
        self._callbacks[event].append(function)

    def train(self, *, resume=False, project="", name="train", epochs=100, exist_ok=False, **told):
        first = 0
        folder = Path(project, name)
        if resume:
            state = json.loads(self._file.read_text())
            assert state["optimizer"], "training is finished, nothing to resume"
            first, epochs, folder = state["epoch"], state["epochs"], Path(state["save_dir"])
        elif not exist_ok:
            assert not folder.exists(), "would train in another folder"
        (folder / "weights").mkdir(parents=True, exist_ok=True)
        trainer = types.SimpleNamespace(start_epoch=first, epochs=epochs, epoch=first, metrics={})
        self._tell("on_train_start", trainer)
        for trainer.epoch in range(first, epochs):
            self._train_epoch(folder, trainer)
        state = {"epoch": -1, "epochs": epochs, "save_dir": str(folder), "optimizer": None}
        (folder / "weights/last.pt").write_text(json.dumps(state))
        self._tell("on_train_end", trainer)

    def _train_epoch(self, folder: Path, trainer) -> None:
        for _ in range(STEPS):
            time.sleep(EPOCH_S / STEPS)
        done = trainer.epoch + 1
        trainer.metrics = {
            "train/box_loss": 2.0 / done**0.5,
            "metrics/mAP50(B)": 1 - 1 / (1 + done / 8),
            "metrics/recall(B)": 1 - 1 / (1 + done / 5),
        }
        results = folder / "results.csv"
        if not results.exists():
            results.write_text(",".join(["epoch", *trainer.metrics]) + "\n")
        with results.open("a") as file:
            file.write(f"{done}," + ",".join(f"{v:.5f}" for v in trainer.metrics.values()) + "\n")
        state = {
            "epoch": done,
            "epochs": trainer.epochs,
            "save_dir": str(folder),
            "optimizer": {"momentum": [0.5] * 1000},
        }
        for each in ("last.pt", "best.pt"):
            (folder / "weights" / each).write_text(json.dumps(state))
        self._tell("on_model_save", trainer)
        self._tell("on_fit_epoch_end", trainer)

    def _tell(self, event: str, trainer) -> None:
        for function in self._callbacks[event]:
            function(trainer)
