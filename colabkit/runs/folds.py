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
        f"Nothing would be trained: another model was trained to its end in {location} a moment"
        " ago, in an earlier turn of the loop that makes this run."
    )
    hint = (
        'Give each fold or try a folder of its own: Run(f"{folder}/{fold}", ...). Or pass'
        ' data_changed="accept" if it is to be found trained.'
    )
    return CheckpointMismatchError(message, differences={}, hint=hint)


def _caller() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame
