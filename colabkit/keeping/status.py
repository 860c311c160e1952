"""How far a folder is kept, as the user sees it."""

from __future__ import annotations

import dataclasses
import re
import time

from colabkit.keeping.progress import KeepProgress
from colabkit.keeping.version import Version
from colabkit.notebook import Card, Row, Tone, bytes_words, duration_words, files_words


@dataclasses.dataclass(frozen=True, slots=True)
class UploadedVersion:
    """A version that would be back on the next machine if this one went now.

    Attributes:
        name: Its name in the place, of which the largest is the newest.
        checkpoint: The newest checkpoint in it, "" for none.
        saved_s: When it was taken, in seconds since the epoch.
        step: The last number in the checkpoint's name, None where there is none.
    """

    name: str
    checkpoint: str
    saved_s: float
    step: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class KeepStatus:
    """How far a folder is kept.

    Attributes:
        files: How many files the newest version in its place has.
        nbytes: Their size.
        checkpoint: The newest checkpoint in it, "" for none.
        saved_s: When it was taken, in seconds since the epoch; None before the first.
        is_safe: Whether everything is there and uploaded.
        is_silent: Whether the place does not tell what is uploaded.
        waiting: What is newer here than there.
        waiting_nbytes: Its size.
        objections: What may not be taken yet, and why.
        error: What stands in the way, None when nothing does.
        sent_nbytes: What was sent since the folder is kept.
        uploaded: The newest version that is known to be uploaded, None before the first and where
            the place does not tell.
    """

    files: int = 0
    nbytes: int = 0
    checkpoint: str = ""
    saved_s: float | None = None
    is_safe: bool = True
    is_silent: bool = False
    waiting: tuple[str, ...] = ()
    waiting_nbytes: int = 0
    objections: tuple[str, ...] = ()
    error: BaseException | None = None
    sent_nbytes: int = 0
    uploaded: UploadedVersion | None = None


def status_of(progress: KeepProgress, failure: BaseException | None) -> KeepStatus:
    """Returns how far a folder is kept.

    Args:
        progress: How far its keeper is.
        failure: What ended it, None while it goes on.
    """
    newest, confirmed = progress.newest, progress.confirmed
    return KeepStatus(
        files=newest.count if newest is not None else 0,
        nbytes=newest.nbytes if newest is not None else 0,
        checkpoint=newest.checkpoint if newest is not None else "",
        saved_s=newest.saved_s if newest is not None else None,
        is_safe=progress.is_safe and failure is None and progress.error is None,
        is_silent=progress.is_silent,
        waiting=progress.waiting,
        waiting_nbytes=progress.waiting_nbytes,
        objections=progress.objections,
        error=failure or progress.error,
        sent_nbytes=progress.sent_nbytes,
        uploaded=_uploaded(confirmed) if confirmed is not None and not progress.is_silent else None,
    )


def _uploaded(version: Version) -> UploadedVersion:
    numbers = re.findall(r"\d+", version.checkpoint.rpartition("/")[2])
    step = int(numbers[-1]) if numbers else None
    return UploadedVersion(str(version.name), version.checkpoint, version.saved_s, step)


def status_card(status: KeepStatus, folder: str, location: str) -> Card:
    """Returns how far a folder is kept as a card."""
    rows = [Row("Folder", folder), Row("Kept in", location)]
    if status.saved_s is None:
        rows.append(Row("There", "nothing yet"))
    else:
        words = f"{files_words(status.files)}, {bytes_words(status.nbytes)}"
        words += f", {status.checkpoint}" if status.checkpoint else ""
        ago = duration_words(time.time() - status.saved_s)
        rows.append(Row("There", f"{words}, {ago} ago", Tone.GOOD))
    if status.waiting:
        words = f"{len(status.waiting):,} newer here, {bytes_words(status.waiting_nbytes)}"
        rows.append(Row("Waiting", words, Tone.NOTE))
    elif not status.is_safe and status.error is None:
        rows.append(Row("Waiting", "for the upload to end", Tone.NOTE))
    rows += [Row("Not yet", why, Tone.NOTE) for why in status.objections[:3]]
    if status.error is not None:
        rows.append(Row("Trouble", str(status.error), Tone.BAD))
    return Card("Kept folder", tuple(rows))
