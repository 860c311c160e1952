"""A real Trainer of Hugging Face on a machine that may be killed: kept, or in a folder of its own.

``python -m tests.real_trainer_life FOLDER DIARY STEP_SECONDS [PLACE]``
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import colabkit


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 64), torch.nn.Dropout(0.2), torch.nn.Linear(64, 3)
        )

    def forward(self, x, labels):
        logits = self.layers(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class Notes(TrainerCallback):
    """Writes down each step, and which checkpoint is said to be safe."""

    def __init__(self, diary: Path, kept, step_s: float) -> None:
        self._diary, self._kept, self._step_s = diary, kept, step_s

    def note(self, **line) -> None:
        with self._diary.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def on_train_begin(self, args, state, control, **_) -> None:
        self.note(began=state.global_step)

    def on_step_end(self, args, state, control, **_) -> None:
        time.sleep(self._step_s)
        uploaded = self._kept._opened.keeper.progress.confirmed if self._kept is not None else None
        safe = uploaded.checkpoint if uploaded is not None else ""
        self.note(step=state.global_step, safe=int(safe.rpartition("-")[2]) if safe else 0)


def main() -> None:
    """Trains to the end, and notes a digest of the weights."""
    folder, diary, step_s, *place = sys.argv[1:]
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(96, 4, generator=generator)
    rows = [{"x": each, "labels": (each.sum() > 0).long()} for each in x]
    how = {"save_steps": 3, "save_total_limit": 2, "num_train_epochs": 4}
    quiet = {"report_to": "none", "use_cpu": True, "disable_tqdm": True}
    with colabkit.keep(folder, *place) if place else nullcontext() as kept:
        notes = Notes(Path(diary), kept, float(step_s))
        options = TrainingArguments(folder, per_device_train_batch_size=8, **how, **quiet)
        trainer = Trainer(Classifier(), options, train_dataset=rows, callbacks=[notes])
        newest = kept.latest("checkpoint-*") if kept is not None else None
        trainer.train(resume_from_checkpoint=newest)
        digest = [p.detach().double().sum().item().hex() for p in trainer.model.parameters()]
        notes.note(ended=trainer.state.global_step, digest=digest)


if __name__ == "__main__":
    main()
