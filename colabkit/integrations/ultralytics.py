"""For Ultralytics' YOLO, through its own callbacks."""

from __future__ import annotations

from typing import Any

from colabkit.runs import Watched


def watch(model: Any, kept: Any, **options: Any) -> None:
    """Shows a YOLO's training in a panel, goes on in its W&B run, and has it safe in time.

    Near the end of the machine each save is waited for. Nothing is stopped: of a training that is
    stopped YOLO takes the optimizer out of last.pt, and nothing could go on from it.

    Args:
        model: A YOLO.
        kept: What ``colabkit.keep`` gave for the folder of the run, ``project/name``.
        options: ``leave_s``: how long before this machine is likely to go, in seconds.
    """
    watched = Watched(kept, **options)

    def begin(trainer: Any) -> None:
        total = trainer.epochs
        watched.begin(step=trainer.start_epoch, total_steps=total, epochs=total)

    def follow(trainer: Any) -> None:
        done = trainer.epoch + 1
        watched.update(done, done, trainer.metrics)

    def save(_trainer: Any) -> None:
        watched.due()
        if watched.is_ending:
            kept.flush()

    told = {"on_train_start": begin, "on_fit_epoch_end": follow, "on_model_save": save}
    for event, answer in {**told, "on_train_end": lambda _: watched.end()}.items():
        model.add_callback(event, answer)
