"""What a checkpoint notes of a call's settings, to say at a resume what is passed otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colabkit.fitting.passed_callbacks import settings_of_callbacks

if TYPE_CHECKING:
    from colabkit.fitting.keras.options import KerasOptions

_NUMBERS = ("steps_per_epoch", "validation_split", "validation_steps", "validation_batch_size")


def settings_of(options: KerasOptions) -> dict[str, Any]:
    """Returns what weighs samples, and what comes after each epoch, as words that can be shown."""
    weights, often = options.class_weight, options.validation_freq
    return {
        "class_weight": [] if weights is None else [list(pair) for pair in weights.items()],
        "sample_weight": "none" if options.sample_weight is None else "passed",
        "shuffle": options.shuffle,
        "validation_data": "none" if options.validation_data is None else "passed",
        "validation_freq": often if isinstance(often, int) else sorted(often),
        **{name: getattr(options, name) or "none" for name in _NUMBERS},
        **settings_of_callbacks(options.callbacks),
    }
