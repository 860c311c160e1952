"""Where a run's checkpoints are, in words and as the stages of a panel."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable

from colabkit.checkpoint import FoundSave, SaveState, SaveStatus, UploadStatus
from colabkit.errors import DriveLostError
from colabkit.notebook import Stage, Tone, duration_words, saved_words

_UPLOAD_PATIENCE_S = 600.0
_LONG_COPY_S = 2.0
_PLACES = {
    SaveState.STAGED: "on this machine",
    SaveState.COMMITTED: "in the run folder",
    SaveState.CONFIRMED: "uploaded",
}


def bar_words(status: SaveStatus | None) -> str:
    """Returns the bar's short word on the newest save, "" before the first."""
    if status is None or status.state not in _PLACES:
        return ""
    words = saved_words(step=status.step, age_s=status.age_s, place=_PLACES[status.state])
    return words if status.upload is None else f"{words}, {_upload_words(status.upload)}"


def complaint_of(status: SaveStatus) -> str:
    """Returns what stands in the way of the run's saves, "" when nothing does."""
    upload = status.upload
    if status.error is not None:
        return f"The last checkpoint could not be saved: {status.error}"
    if upload is None:
        return ""
    if upload.error is not None and not isinstance(upload.error, DriveLostError):
        return f"Checkpoints stay on this machine for now: {upload.error}"
    if upload.unconfirmed_s > _UPLOAD_PATIENCE_S:
        return (
            f"Drive has not uploaded the checkpoint of step {upload.committed_step} for"
            f" {duration_words(_UPLOAD_PATIENCE_S)}; look whether your Drive or its trash is full."
        )
    return ""


def parting_words(status: SaveStatus) -> str:
    """Returns what to know of a run's last checkpoint at its end, "" when it is uploaded.

    Example:
        >>> parting_words(SaveStatus(upload=UploadStatus(committed_step=7, unconfirmed_s=2.0)))[:54]
        'Drive has not uploaded the checkpoint of step 7 so far'
    """
    upload = status.upload
    if upload is None or upload.committed_step is None or not upload.unconfirmed_s:
        return ""
    step = f"the checkpoint of step {upload.committed_step:,}"
    if upload.is_silent:
        return (
            f"What is mounted does not say here when {step} is uploaded: keep this machine for a"
            " while."
        )
    return (
        f"Drive has not uploaded {step} so far: keep this machine until it has;"
        " colabkit.release() waits for it."
    )


class SaveTrail:
    """Follows checkpoints from place to place, to tell how old each place's newest is.

    Args:
        clock: Seconds that only grow.
        now: The time of day.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._clock, self._now = clock, now
        self._saved_s: dict[int, float] = {}
        self._found: FoundSave | None = None

    def follow(self, status: SaveStatus) -> None:
        """Notes when the newest save was made."""
        if status.found is not None and self._found is None:
            self._found = status.found
            age_s = (self._now() - status.found.saved_at).total_seconds()
            self._saved_s[status.found.step] = self._clock() - age_s
        if status.state in _PLACES:
            self._saved_s[status.step] = self._clock() - status.age_s
        arrived = status.upload.confirmed_step if status.upload is not None else status.step
        if arrived is not None and len(self._saved_s) > 1:
            self._saved_s = {s: at for s, at in self._saved_s.items() if s >= arrived}

    def stages(self, status: SaveStatus | None, *, volume: str) -> list[Stage]:
        """Returns where the checkpoints are, the safest place last.

        Args:
            status: What the saver says, None outside a loop.
            volume: What the user calls the place of the run folder: "Drive".
        """
        if status is None:
            return []
        found = self._found
        step = status.step if status.step in self._saved_s else None
        if found is not None and step is None and (status.upload is None or found.is_staged):
            step = found.step
        remark = "writing the next" if status.state is SaveState.COPIED else ""
        tone = Tone.BAD if status.error is not None else Tone.PLAIN
        upload = status.upload
        if upload is None:
            return [self._stage(volume, step, tone, remark)]
        return [
            self._stage("this machine", step, tone, remark),
            self._stage(volume, upload.committed_step, *_state_of(upload)),
            self._uploaded(f"{volume}: uploaded", upload),
        ]

    def _uploaded(self, name: str, upload: UploadStatus) -> Stage:
        stage = self._stage(name, upload.confirmed_step)
        if upload.committed_step is None or upload.confirmed_step is not None:
            return stage
        return dataclasses.replace(stage, none="not told" if upload.is_silent else "not yet")

    def _stage(
        self, name: str, step: int | None, tone: Tone = Tone.PLAIN, remark: str = ""
    ) -> Stage:
        saved_s = self._saved_s.get(step) if step is not None else None
        age_s = None if saved_s is None else max(0.0, self._clock() - saved_s)
        none = "nothing yet" if self._found is None else f"nothing since step {self._found.step:,}"
        return Stage(name, step, age_s, tone, remark, none)


def _state_of(upload: UploadStatus) -> tuple[Tone, str]:
    waiting = f"{upload.waiting} waiting" if upload.waiting else ""
    if upload.error is not None:
        return Tone.BAD, waiting or "cannot be reached"
    if upload.busy_s > _LONG_COPY_S:
        return Tone.NOTE, f"copying for {duration_words(upload.busy_s)}"
    return Tone.PLAIN, waiting


def _upload_words(upload: UploadStatus) -> str:
    """Returns how far the volume is behind this machine."""
    if upload.committed_step is None:
        return "nothing on the volume yet"
    if upload.confirmed_step == upload.committed_step:
        return f"step {upload.committed_step:,} uploaded"
    known = "" if upload.confirmed_step is None else f", step {upload.confirmed_step:,} uploaded"
    return f"step {upload.committed_step:,} on the volume{known}"
