"""Who wants to know that a training runs: told when it begins, goes on, and ends."""

from __future__ import annotations

from typing import Protocol


class TrainingListener(Protocol):
    """Somebody who wants to know; called on the main thread."""

    def began(self) -> None:
        """A training begins."""

    def goes_on(self) -> None:
        """It takes steps; called several times a second."""

    def ended(self) -> None:
        """It ended, was interrupted or failed."""


_listeners: list[TrainingListener] = []


def listen_to_trainings(listener: TrainingListener | None) -> None:
    """Makes one listener the only one, or none."""
    _listeners[:] = [listener] if listener is not None else []


def training_began() -> None:
    """Tells that a training begins."""
    for listener in _listeners:
        listener.began()


def training_goes_on() -> None:
    """Tells that steps are taken."""
    for listener in _listeners:
        listener.goes_on()


def training_ended() -> None:
    """Tells that it ended."""
    for listener in _listeners:
        listener.ended()
