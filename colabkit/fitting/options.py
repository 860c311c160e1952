"""What every framework's fit takes, besides model, data and folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.runs.checks import require_count, require_flag, require_list, seed_of
from colabkit.runs.news import News
from colabkit.runs.options import RunOptions

_FOR_A_BATCH = (
    'Pass a whole number from 1 on; microbatch="auto" divides a batch where memory runs out.'
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """The arguments of ``fit`` that mean the same whatever the model is."""

    epochs: int
    batch_size: int
    validation_data: Any
    callbacks: Sequence[Any]
    seed: int | None
    save_every: str | int | None
    keep: int
    monitor: str | None
    resume: bool | str | int
    data_changed: str
    progress: bool
    tensorboard: bool
    logger: Any
    release_when_done: bool
    max_steps: int | None
    max_time: str | float | None
    phase: str | None
    save_base: bool
    news: News

    def __post_init__(self) -> None:
        for name in ("epochs", "keep"):
            require_count(name, getattr(self, name))
        for name in ("progress", "release_when_done", "save_base"):
            require_flag(name, getattr(self, name))
        require_count("batch_size", self.batch_size, hint=_FOR_A_BATCH)
        seed_of(self.seed)
        require_list("callbacks", self.callbacks)

    def for_run(self, *, validates: bool) -> RunOptions:
        """Returns those of the ``Run`` that ``fit`` trains with."""
        return RunOptions(
            seed=self.seed,
            save_every=self.save_every,
            keep=self.keep,
            monitor=self.monitor or ("val_loss" if validates else None),
            resume=self.resume,
            data_changed=self.data_changed,
            progress=self.progress,
            tensorboard=self.tensorboard,
            logger=self.logger,
            must_be_finite=("loss",),
            max_steps=self.max_steps,
            max_time=self.max_time,
            phase=self.phase,
            save_base=self.save_base,
            news=self.news,
        )

    def check_is_read_often_enough(self, feed: Any, *, instead: str) -> None:
        """Raises ArgumentError where data that is read once is wanted for several epochs."""
        if self.epochs == 1 or not getattr(feed, "reads_once", False):
            return
        message = f"data is a generator, which can be read only once, and epochs is {self.epochs}."
        hint = f"Pass the function that makes it (without calling it), {instead}."
        raise ArgumentError(message, argument="data", hint=hint)
