"""Whether the data lasts: what Keras warns of, and what no epoch may be made of."""

from __future__ import annotations

import warnings

from colabkit.frameworks.keras.places import KerasFeed, Turn

_HINT = (
    "Training to the end takes steps_per_epoch * epochs batches: let the data .repeat(), or pass"
    " a function that makes it anew."
)


class EmptyEpochError(Exception):
    """The data gave no batch for an epoch, which therefore never was."""


class Supply:
    """Follows how far the data reaches.

    Attributes:
        turn: The pass under way over data that does not say how long it is.

    Args:
        feed: The training data.
        steps_per_epoch: Batches that the user wants in an epoch, or None for a pass.
        validation_steps: Batches that the user wants in a validation, or None for a pass.
    """

    def __init__(
        self, feed: KerasFeed, *, steps_per_epoch: int | None, validation_steps: int | None
    ) -> None:
        self.turn = Turn()
        self._feed = feed
        self._steps = steps_per_epoch
        self._validation_steps = validation_steps

    def due(self, epoch: int) -> int | None:
        """Returns the batches of an epoch, at most; None where only reading tells."""
        length = self._feed.length_of(epoch)
        return self._steps if length is None else length

    def end_epoch(self, epoch: int, *, batches: int) -> None:
        """Warns where an epoch got fewer batches than were wanted; the next one begins anew."""
        if self._steps is None or batches >= self._steps:
            return
        message = (
            f"Your input ran out of data in epoch {epoch + 1}: {batches} of {self._steps} steps."
        )
        warnings.warn(f"{message} {_HINT}", stacklevel=2)
        if self._may_begin_anew():
            self.turn = Turn(self.turn.number + 1, epoch + 1)

    def renews(self, epoch: int, *, step: int) -> bool:
        """Whether data that gave nothing for an epoch can be read from its beginning again.

        Args:
            epoch: The epoch.
            step: Steps done in all.
        """
        if self._may_begin_anew() and self.turn.since != epoch:
            self.turn = Turn(self.turn.number + 1, epoch)
            return True
        message = (
            f"Your input ran out of data after step {step}: epoch {epoch + 1} got no batch, and"
            " the training ends before it."
        )
        warnings.warn(f"{message} {_HINT}", stacklevel=2)
        return False

    def end_validation(self, epoch: int, *, batches: int) -> None:
        """Warns where a validation got fewer batches than were wanted, or none."""
        wanted = self._validation_steps
        if batches and (wanted is None or batches >= wanted):
            return
        of = "" if wanted is None else f" of {wanted}"
        message = (
            f"Your validation data ran out after epoch {epoch + 1}: {batches}{of} steps. Each"
            " validation takes validation_steps batches."
        )
        warnings.warn(message, stacklevel=2)

    def _may_begin_anew(self) -> bool:
        if self._steps is None or self._feed.length_of(0) is not None:
            return False
        return not getattr(self._feed, "reads_once", False)

    def state_dict(self) -> dict[str, int]:
        """Returns the pass under way."""
        return {"number": self.turn.number, "since": self.turn.since}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restores the pass under way."""
        self.turn = Turn(state["number"], state["since"])
