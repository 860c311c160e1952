"""For Hugging Face's Trainer, and those of TRL and Unsloth, which are Trainers too."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from colabkit.runs import Watched


class KeepCallback(TrainerCallback):
    """Shows the run, goes on in its W&B run, and ends it, saved, before the machine goes.

    Args:
        kept: What ``colabkit.keep`` gave for the Trainer's ``output_dir``.
        options: ``leave_s``: how long before this machine is likely to go it ends, in seconds.

    Example:
        >>> trainer = Trainer(model, args, callbacks=[KeepCallback(kept)])  # doctest: +SKIP
        >>> trainer.train(resume_from_checkpoint=kept.latest("checkpoint-*"))  # doctest: +SKIP
    """

    def __init__(self, kept: Any, **options: Any) -> None:
        self._watched = Watched(kept, **options)

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        epochs, steps = state.num_train_epochs, state.max_steps
        self._watched.begin(step=state.global_step, total_steps=steps, epochs=epochs)

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
        if self._watched.due() and self._watched.is_ending:
            control.should_save = control.should_training_stop = True

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        self._watched.update(state.global_step, state.epoch or 0, logs or {})

    def on_train_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        self._watched.end()
