"""How far a save has come."""

from __future__ import annotations

import dataclasses
import datetime
import enum

from colabkit.checkpoint.policy import SaveTimings
from colabkit.checkpoint.uploader import UploadStatus


class SaveState(enum.Enum):
    """How far the newest save has come."""

    NONE = "nothing saved yet"
    COPIED = "copied into memory"
    STAGED = "on the local disk"
    COMMITTED = "on the volume"
    CONFIRMED = "uploaded"


@dataclasses.dataclass(frozen=True, slots=True)
class FoundSave:
    """The checkpoint that a session goes on from.

    Attributes:
        step: Batches trained.
        saved_at: When it was saved, UTC.
        is_staged: Whether it is on this machine's disk only, on its way to a slow volume.
    """

    step: int
    saved_at: datetime.datetime
    is_staged: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class SaveStatus:
    """What a saver is doing, for the progress bar and the policy.

    Attributes:
        state: How far the newest save has come.
        step: The step of the newest save that is committed, 0 before the first.
        age_s: Seconds since it was committed.
        timings: How long it took.
        error: Why the newest save failed, None when it did not.
        wants_retake: Whether a snapshot was torn and thrown away.
        upload: How far a slow volume is behind the local disk, None without a staging area.
        finite_step: The newest step whose trained weights were seen to be finite, or None.
        is_finite: Whether those of the newest save are.
        found: What the session goes on from, None where that is no checkpoint of this attempt.
    """

    state: SaveState = SaveState.NONE
    step: int = 0
    age_s: float = 0.0
    timings: SaveTimings = dataclasses.field(default_factory=SaveTimings)
    error: OSError | None = None
    wants_retake: bool = False
    upload: UploadStatus | None = None
    finite_step: int | None = None
    is_finite: bool = True
    found: FoundSave | None = None
