"""keep(): a folder that any trainer writes, whole on a volume and back on the next machine."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from colabkit.checkpoint import Lease, upload_stranded
from colabkit.errors import (
    ArgumentError,
    CheckpointCorruptError,
    MissingPackageError,
    StorageError,
)
from colabkit.keeping.kept import Kept
from colabkit.keeping.notes import stranded_folders
from colabkit.keeping.opening import local_folder
from colabkit.keeping.options import KeepOptions
from colabkit.keeping.other_names import OF_KEEP
from colabkit.other_names import answering
from colabkit.storage import volume_at

_live: dict[Path, Kept] = {}


@answering(OF_KEEP)
def keep(
    folder: str | Path,
    to: str | Path,
    *,
    every: str | float = "auto",
    whole: tuple[str, ...] | str = (),
    copies: int = 2,
    skip: tuple[str, ...] | str = (),
    progress: bool = True,
) -> Kept:
    """Brings a folder back from a place that lasts, and keeps it there from now on.

    A trainer of any kind writes into the folder on this machine's disk; what is whole there is
    copied in the background, version by version, and counts when all of it has arrived. A
    checkpoint's folder counts only as a whole. What was in the folder before is taken for an
    input, and kept only once it changes.

    Args:
        folder: The folder, on this machine's disk; made if need be.
        to: Where it is kept: a folder on Drive, a bucket, any volume.
        every: How often there may be a version: "auto" for as often as the place takes them,
            or seconds, or a time such as "5min".
        whole: Patterns for further folders that count only as a whole.
        copies: How many versions the place keeps.
        skip: Patterns for names or paths that are not kept.
        progress: Whether to say what happens.

    Returns:
        The folder, which can be used as a path.

    Raises:
        ArgumentError: An argument cannot be used, or another folder is kept in that place.
        CheckpointCorruptError: The place holds versions, and none is whole.
        DiskFullError: This machine's disk has no room for what is there.
        StorageError: The place cannot be read or written.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp())
        >>> with keep(place / "run", place / "safe", progress=False) as kept:
        ...     _ = (kept / "log.txt").write_text("epoch 1")
        >>> kept.status.files, kept.latest("log.txt") == str(place / "run/log.txt")
        (1, True)
    """
    options = KeepOptions.checked(every, whole, copies, skip)
    return _kept(local_folder(folder, to), to, options, is_shown=progress)


def keep_outputs(
    folder: Path,
    to: str | Path,
    *,
    inputs: Mapping[str, tuple[int, int]] | None,
    every: str | float,
) -> Kept:
    """Keeps the folder that a program works in.

    Args:
        folder: The folder, on this machine's disk.
        to: Where it is kept.
        inputs: The size and the time of each file that is no output, by its path; None where
            that is whatever is in the folder.
        every: How often there may be a version.
    """
    options = KeepOptions.checked(every, (), 2, ())
    options = dataclasses.replace(options, inputs=inputs)
    return _kept(folder, to, options, is_shown=True)


def _kept(where: Path, to: str | Path, options: KeepOptions, *, is_shown: bool) -> Kept:
    there = _live.get(where)
    if there is not None and not there.is_closed:
        if there.is_kept_as(to, options):
            return there
        there.close()
    for other in kept_folders():
        if other.path != where and other.is_kept_in(to):
            message = f"{to} keeps {other.path} already."
            hint = "Pass a place of its own for each folder, or close() the other one first."
            raise ArgumentError(message, argument="to", hint=hint)
    kept = Kept(where, to, options, is_shown=is_shown)
    _live[where] = kept
    _remount_after_cells()
    return kept


def kept_folders() -> list[Kept]:
    """Returns the folders that are kept now."""
    for where in [each for each, kept in _live.items() if kept.is_closed]:
        del _live[where]
    return list(_live.values())


def upload_all(say: Callable[[str], None], *, timeout_s: float = 3600.0) -> bool:
    """Brings to where it belongs whatever waits on this machine: checkpoints and kept folders.

    What a kernel kept that has died on this machine goes there, too.

    Args:
        say: Tells the user a sentence.
        timeout_s: How long to wait for each kept folder, in seconds.

    Returns:
        Whether all of it is there; what is not whole, and so is not, was named to the user.

    Raises:
        StorageError: Something does not get there: it is on this machine only.
    """
    upload_stranded(say)
    left_behind: list[str] = []
    for kept in kept_folders():
        kept.flush(timeout_s=timeout_s)
        left_behind += kept.status.objections
    for left in stranded_folders():
        if left.folder in _live:
            continue
        try:
            if Lease(volume_at(left.place)).newest_generation() != left.generation:
                continue  # another session has gone on from what is there
            options = KeepOptions.again(left.how)
            with Kept(left.folder, left.place, options, is_shown=False) as kept:
                kept.flush(timeout_s=timeout_s)
                lacking = kept.status.objections
            words = f", but for {len(lacking):,}: {'; '.join(lacking[:3])}" if lacking else ""
            say(f"{left.folder} waited on this machine: it is kept in {kept.location} now{words}.")
            left_behind += lacking
        except (StorageError, MissingPackageError, CheckpointCorruptError) as error:
            message = f"What is new in {left.folder} is on this machine only: {error}"
            hint = "The machine is kept. Put that right and call release() again."
            raise StorageError(message, path=left.folder, operation="keep", hint=hint) from error
    return not left_behind


def remount_for_kept() -> None:
    """Mounts Drive again where a kept folder needs it; on the main thread, between two steps."""
    for kept in kept_folders():
        with contextlib.suppress(StorageError):
            kept.remount()


_watched: list[Any] = []


def _remount_after_cells() -> None:
    """Has Drive mounted again after each cell: while one runs, the main thread is its own."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if (
        shell is None
        or shell in _watched
        or threading.current_thread() is not threading.main_thread()
    ):
        return
    _watched.append(shell)
    shell.events.register("post_run_cell", _after_cell)


def _after_cell(*_: object) -> None:
    remount_for_kept()
