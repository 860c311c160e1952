"""Folds of a cross-validation, or tries of a search, that would share one run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

from colabkit.errors import CheckpointMismatchError
from colabkit.frameworks.base import Owned
from colabkit.runs.handover import was_done_by_another
from colabkit.runs.loop_source import stands_in_loop

_PACKAGE = str(Path(__file__).parents[1])


def is_another_fold(location: str, owned: Owned) -> bool:
    """Whether a loop of the user's makes one run after the other on a folder, for other objects.

    Args:
        location: The run folder.
        owned: The objects of the run that is made now.
    """
    return was_done_by_another(location, owned) and stands_in_loop(_caller())


def nothing_trained(location: str) -> CheckpointMismatchError:
    """Returns the error for a run that would take another fold's training for its own."""
    message = (
        f"Nothing would be trained: another run came to its end in {location} a moment ago, in an"
        " earlier turn of the loop that makes this one."
    )
    hint = (
        'Give each fold or try a folder of its own: Run(f"{folder}/{fold}", ...). Or pass'
        ' data_changed="accept" if it is to be found trained.'
    )
    return CheckpointMismatchError(message, differences={}, hint=hint)


def require_other_epochs(count: int, done: int | None) -> None:
    """Raises where a loop of the user's asks a run for the same epochs again, for another fold.

    Args:
        count: How many are asked for.
        done: How many this session has found or trained to their end.

    Raises:
        CheckpointMismatchError: Nothing would be trained.
    """
    if count == done and stands_in_loop(_caller()):
        message = (
            f"Nothing would be trained: the {count} epochs of this Run were done a moment ago, in"
            " an earlier turn of the loop that asks for them."
        )
        hint = 'Make a Run for each fold or try, in a folder of its own: Run(f"{folder}/{fold}").'
        raise CheckpointMismatchError(message, differences={}, hint=hint)


def _caller() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame
