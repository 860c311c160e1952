"""Where a run stands, as plain numbers and as words."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run has come.

    Attributes:
        step: Steps done in all.
        epoch: Epochs done before the one under way.
        epochs: Epochs of the run, None when unknown.
        total_steps: All steps of the run, None when unknown.
        steps_per_epoch: Batches in an epoch, None when unknown.
        extra_steps: Steps that earlier epochs had beyond this length; below 0, what they lacked.
    """

    step: int = 0
    epoch: int = 0
    epochs: int | None = None
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    extra_steps: int = 0

    @property
    def share(self) -> float | None:
        """How much of the run is done, from 0 to 1; None when its length is unknown."""
        if not self.total_steps:
            return None
        return min(1.0, max(0.0, self.step / self.total_steps))

    def left_s(self, steps_per_s: float) -> float | None:
        """Returns how long the rest takes at a rate, None when that cannot be told."""
        if not self.total_steps or steps_per_s <= 0:
            return None
        return max(0.0, (self.total_steps - self.step) / steps_per_s)

    def words(self) -> str:
        """Returns epoch and batch in short.

        Example:
            >>> RunProgress(step=112, epoch=2, epochs=20, steps_per_epoch=50).words()
            'epoch 3/20 · 12/50'
        """
        return self._joined(" · ", "/")

    def in_words(self) -> str:
        """Returns epoch and batch as one says them.

        Example:
            >>> RunProgress(step=112, epoch=2, epochs=20, steps_per_epoch=50).in_words()
            'epoch 3 of 20, batch 12 of 50'
        """
        return self._joined(", batch ", " of ")

    def _joined(self, before_batch: str, of: str) -> str:
        words = f"epoch {self.epoch + 1}" + (f"{of}{self.epochs}" if self.epochs else "")
        if (batch := self.batch) is not None:
            words += f"{before_batch}{batch:,}{of}{self.steps_per_epoch:,}"
        return words

    @property
    def batch(self) -> int | None:
        """Batches done in the epoch, None where that cannot be told."""
        batch = self.step - self.extra_steps - self.epoch * (self.steps_per_epoch or 0)
        return batch if 0 <= batch <= (self.steps_per_epoch or -1) else None
