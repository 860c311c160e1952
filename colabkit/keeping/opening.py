"""Opens a kept folder: brings back what its place holds, and begins to keep it there."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

from colabkit.checkpoint import Lease
from colabkit.errors import ArgumentError, DriveLostError
from colabkit.keeping.bringing import Brought, bring_back
from colabkit.keeping.keeper import Keeper
from colabkit.keeping.notes import Notes
from colabkit.keeping.options import KeepOptions
from colabkit.keeping.publishing import Publisher
from colabkit.keeping.scanning import Stamp, scan_folder
from colabkit.keeping.staging import StagingArea
from colabkit.keeping.store import VersionStore
from colabkit.keeping.taking import Taker
from colabkit.storage import (
    DriveMount,
    DriveVolume,
    RemountOutcome,
    Volume,
    is_slow,
    locate,
    url_of,
    volume_at,
)

_TRIES = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """A folder that is kept from now on.

    Attributes:
        folder: The folder.
        volume: Where it is kept.
        keeper: What keeps it.
        taker: What looks at it.
        brought: What was brought back.
        notes: What this machine remembers.
        last_sign_s: When a session before gave its last sign, 0 for never.
        inputs: How many files were here before and are not kept until they change.
    """

    folder: Path
    volume: Volume
    keeper: Keeper
    taker: Taker
    brought: Brought
    notes: Notes
    last_sign_s: float
    inputs: int

    @property
    def mount(self) -> DriveMount | None:
        """The mount of Drive that it is kept on, None elsewhere."""
        return self.volume.mount if isinstance(self.volume, DriveVolume) else None


def local_folder(folder: str | Path, to: str | Path) -> Path:
    """Returns where a folder to be kept is.

    Raises:
        ArgumentError: It is on Drive itself, is a file, or lies in its own place.
    """
    given: tuple[tuple[str, object], ...] = (("folder", folder), ("to", to))
    for name, value in given:
        if not isinstance(value, str | os.PathLike):
            hint = 'Pass both: keep("/content/runs/exp", "MyDrive/exp").'
            raise ArgumentError.of(name, value, hint)
    where = locate(folder).absolute()
    if is_slow(where):
        message = f"{folder} is on Drive or another slow place itself ({where})."
        hint = "Pass a folder on this machine's disk, as '/content/runs/exp': keep() copies it."
        raise ArgumentError(message, argument="folder", hint=hint)
    if where.exists() and not where.is_dir():
        message = f"{folder} is a file."
        raise ArgumentError(message, argument="folder", hint="Pass the folder it is in.")
    if url_of(to) is None:
        place = locate(to).absolute()
        if place.is_relative_to(where) or where.is_relative_to(place):
            message = f"{folder} and {to} lie in one another."
            hint = "Pass two folders apart: what is kept, and where."
            raise ArgumentError(message, argument="to", hint=hint)
    return where


def open_kept(
    folder: Path, to: str | Path, options: KeepOptions, *, say: Callable[[str], None]
) -> Opened:
    """Brings a folder back and begins to keep it; on the main thread.

    Args:
        folder: The folder.
        to: Where it is kept.
        options: How.
        say: Tells the user a sentence.

    Raises:
        CheckpointCorruptError: There are versions, and none is whole.
        DiskFullError: This machine's disk has too little room.
        DriveLostError: Drive is not mounted, or was lost and cannot be mounted again.
        StorageError: The place cannot be read or written.
    """
    volume = volume_at(to)
    mount = volume.mount if isinstance(volume, DriveVolume) else None
    tries = _TRIES
    while True:
        try:
            return _opened(folder, volume, options, say)
        except DriveLostError:
            tries -= 1
            if (
                mount is None
                or not tries
                or mount.remount(now=True).outcome is RemountOutcome.REFUSED
            ):
                raise


def _opened(
    folder: Path, volume: Volume, options: KeepOptions, say: Callable[[str], None]
) -> Opened:
    store = VersionStore(volume)
    notes = Notes(folder, volume.anywhere, options.noted())
    remembered = notes.read()
    folder.mkdir(parents=True, exist_ok=True)
    volume.sweep()
    last_sign_s = store.last_sign_s()
    brought = bring_back(
        folder,
        store,
        whole=options.whole,
        skip=options.skip,
        remembered=remembered,
        inputs=options.inputs or {},
    )
    lease = Lease(volume)
    lease.acquire(max((name.generation for name in store.names()), default=0))
    baseline = _baseline(folder, options, brought, remembered.baseline if remembered else None)
    notes.begin(lease.generation, baseline, brought.stamps)
    taker = Taker(
        folder,
        StagingArea(folder, _staging_place(folder, notes.root)),
        options.whole,
        options.skip,
        baseline,
        dict(brought.stamps),
    )
    keeper = Keeper(
        taker,
        store,
        lease,
        Publisher(folder, store, lease, options.whole),
        newest=brought.version,
        held=brought.held,
        trusted=set() if brought.version is None else {brought.version.name},
        copies=options.copies,
        period_s=options.period_s,
        notes=notes,
        say=say,
    )
    keeper.start()
    inputs = len(baseline) if options.inputs is None else 0
    return Opened(folder, volume, keeper, taker, brought, notes, last_sign_s, inputs)


def _baseline(
    folder: Path, options: KeepOptions, brought: Brought, before: object
) -> dict[str, Stamp]:
    """Returns what is an input: what was here before anything was kept."""
    files = scan_folder(folder, options.skip).files
    others = {path: stamp for path, stamp in files.items() if path not in brought.held.contents}
    if options.inputs is not None:
        known = options.inputs
        return {p: s for p, s in files.items() if known.get(p) == (s.nbytes, s.mtime_ns)}
    if isinstance(before, dict):
        return {path: stamp for path, stamp in others.items() if before.get(path) == stamp}
    return others


def _staging_place(folder: Path, cache: Path) -> Path:
    """Returns a place on the folder's own disk, where a second name costs nothing."""
    cache.mkdir(parents=True, exist_ok=True)
    if cache.stat().st_dev == folder.stat().st_dev:
        return cache / "staged"
    return folder.parent / f".colabkit-tmp-staged-{cache.name}"


def sentence(opened: Opened, *, now_s: Callable[[], float] = time.time) -> str:
    """Returns what was brought back, in one sentence."""
    from colabkit.notebook import bytes_words, duration_words, files_words

    version, brought = opened.brought.version, opened.brought
    place = opened.volume.location
    if version is None:
        return f"{opened.folder} is kept in {place} from now on."
    files = files_words(len(brought.copied))
    what = f", {version.checkpoint}" if version.checkpoint else ""
    gap_s = opened.last_sign_s - version.saved_s
    if brought.copied and gap_s > 0:
        when = f"saved {duration_words(gap_s)} before the machine went"
    else:
        when = f"saved {duration_words(now_s() - version.saved_s)} ago"
    if not brought.copied:
        return f"{opened.folder} is as it is in {place}{what}, {when}."
    return f"Brought {files} ({bytes_words(brought.nbytes)}) from {place}{what}, {when}."
