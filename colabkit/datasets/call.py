"""One call of ``dataset``: decide, act, say what was done."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from colabkit.datasets.cache.manifest import DatasetManifest, FolderState, boot_id, folder_times
from colabkit.datasets.cache.publishing import (
    Published,
    durability_here,
    empty_trash,
    finish,
    move_to_trash,
    published_in,
    taken,
    write_manifest,
)
from colabkit.datasets.cache.room import mark_used, sweep
from colabkit.datasets.cache.slots import Slot, has_locks, hold, locked, run_with_progress
from colabkit.datasets.deciding import CacheAction, Verdict, decide
from colabkit.datasets.making import Made, MakeRequest, full_error, make, says_full
from colabkit.datasets.origins.resolver import DatasetRequest, OriginResolver
from colabkit.datasets.reading.progress import Watch
from colabkit.datasets.reading.retrying import URL_PATIENCE_S, Retrier
from colabkit.datasets.resolve import Found, is_url
from colabkit.errors import ColabKitError, DestinationTakenError, StorageError
from colabkit.notebook import (
    Printed,
    Silent,
    Speaker,
    TransferBar,
    bytes_words,
    files_words,
    lasted_words,
)
from colabkit.storage import asked, mount_of

_logger = logging.getLogger(__name__)
# With what workers get to end, half of the 5 s after which a cell is to be back: machines are busy.
_CLOSE_TIMEOUT_S = 0.5
Result = TypeVar("Result")


class DatasetPath(type(Path())):  # type: ignore[misc]
    """A folder whose last value in a cell is drawn as a card: tree, counts, a few images."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        from colabkit.notebook import folder_card  # needed where it is shown, and not to make it

        return folder_card(Path(self)) if self.is_dir() else None

    def __reduce__(self) -> tuple[type[Path], tuple[str]]:
        # Another process needs the path, not the card.
        return Path, (str(self),)


class Call:
    """One call of ``dataset``.

    Args:
        request: What was asked for.
        slot: Where the dataset belongs.
        progress: False shows nothing, and says only what was left out.
    """

    def __init__(self, request: DatasetRequest, slot: Slot, *, progress: bool) -> None:
        self._began_s = time.monotonic()
        self._verdict: Verdict | None = None
        self._request = request
        self._slot = slot
        self._speaker: Speaker = Printed() if progress else Silent()
        self._label = request.found.label
        self._bar = TransferBar(self._label, progress=progress)
        self._watch = Watch()
        self._retrier = retrier_for(request.found, self._watch)
        self._resolver = OriginResolver(request, watch=self._watch, retry=self._retrier.retry)

    def run(self) -> Path:
        """Returns the folder, made or found.

        Raises:
            ColabKitError: It can be neither.
        """
        try:
            path = self._used() or self._made()
        except ColabKitError:
            raise
        except KeyboardInterrupt:
            self._bar.close()
            if self._slot.work.is_dir():
                self._speaker.say(f"{self._label}: stopped. Run it again: what is whole is kept.")
            raise
        except OSError as error:
            if says_full(error):
                raise full_error(self._slot) from error
            # What no room foresaw: it still says what it was about.
            message = f"{self._label} cannot be brought to {self._slot.folder}: {error}."
            hint = "Nothing was published; run this cell again, it goes on where it stopped."
            if error.errno == errno.EOPNOTSUPP:
                # github.com/googlecolab/colabtools/issues/2090
                hint = (
                    "Nothing was published. Nothing can read Google's own documents: export it,"
                    " a sheet as CSV, and move it out of the folder."
                )
            raise StorageError(
                message, path=error.filename or self._slot.folder, operation="make", hint=hint
            ) from error
        finally:
            self._bar.close()
            self._close()
            # Also of a call that failed: what it has thrown away would stay with each further try.
            empty_trash(self._slot)
        return path

    def _close(self) -> None:
        # Closing a file on a mount asks that mount, and may hang as reading it does.
        try:
            asked(self._resolver.close, timeout_s=_CLOSE_TIMEOUT_S)
        except TimeoutError:
            _logger.warning("%s does not let go of what was read of it.", self._label)

    def _used(self) -> Path | None:
        """Returns the folder when it can be taken as it is, without the lock."""
        if self._request.pack:
            # Finding out whether the pack is fresh writes it when it is not.
            return None
        verdict = self._run_with_progress(self._decide)
        if verdict.action is CacheAction.REFUSE:
            raise self._refusal(verdict.published)
        if verdict.action is not CacheAction.USE or verdict.renew:
            self._verdict = verdict
            return None
        if not hold(self._slot.folder):
            # Another process evicts or replaces it at this moment.
            return None
        self._say_used(verdict)
        mark_used(self._slot)
        sweep(self._slot)
        return DatasetPath(self._slot.folder)

    def _made(self) -> Path:
        with locked(self._slot, self._bar):
            finish(self._slot, durability_here())
            # Until the lock was held, another process may have made it.
            if self._verdict is None or self._verdict.published != published_in(self._slot):
                self._verdict = self._run_with_progress(self._decide)
            self._act(self._verdict)
            hold(self._slot.folder)
            mark_used(self._slot)
            return DatasetPath(self._slot.folder)

    def _decide(self) -> Verdict:
        return decide(self._request, self._slot, self._resolver, self._watch)

    def _act(self, verdict: Verdict) -> None:
        if verdict.action is CacheAction.REFUSE:
            raise self._refusal(verdict.published)
        if verdict.action is CacheAction.USE:
            self._renew(verdict, self._resolver.stamp())
            move_to_trash(self._slot, self._slot.work)  # what a killed call began of another source
            self._say_used(verdict)
            return
        if verdict.published.state is FolderState.MOVED:
            # Known from now on as what was published, so that it may be replaced.
            self._renew(verdict, None)
        if verdict.reason:
            self._speaker.say(f"{self._label}: {verdict.reason}; it is made anew.")
        if not has_locks(self._slot.side):
            self._speaker.say(
                f"The disk of {self._slot.folder.parent} has no locks: let only one machine at a"
                " time make a dataset there, or one of two may have to be run again."
            )
        made = self._run_with_progress(lambda: self._make(verdict.published))
        self._bar.close()
        self._say_notes()
        self._say_made(made)

    def _make(self, before: Published) -> Made:
        request = self._request
        stamp = self._resolver.stamp() or self._resolver.stamp_now()
        contents = self._resolver.contents()
        to_make = MakeRequest(
            slot=self._slot,
            name=request.found.name,
            origin=self._resolver.origin,
            stamp_now=self._resolver.stamp_now,
            selection=request.selection,
            checksum=request.checksum,
            evict=request.evict,
            durability=durability_here(),
        )
        return make(to_make, before, contents, stamp, self._watch)

    def _renew(self, verdict: Verdict, stamp: str | None) -> None:
        published = published_in(self._slot)
        if not verdict.renew or published.manifest is None:
            return
        header = published.manifest.header
        inode = os.lstat(self._slot.folder).st_ino
        header = dataclasses.replace(
            header, stamp=stamp or header.stamp, boot=boot_id(), inode=inode
        )
        times = folder_times(self._slot.folder)
        for torn in self._slot.side.glob(f"{self._slot.manifest.name}.*"):
            torn.unlink()  # a call before was killed while it wrote
        manifest = DatasetManifest(header, times, published.manifest.packed_members)
        write_manifest(self._slot.manifest, manifest, durability_here())

    def _run_with_progress(self, work: Callable[[], Result]) -> Result:
        return run_with_progress(
            work,
            watch=self._watch,
            retrier=self._retrier,
            bar=self._bar,
            progress_file=self._slot.progress_file if self._slot.side.is_dir() else None,
        )

    def _refusal(self, published: Published) -> DestinationTakenError:
        if published.manifest is None:
            return taken(self._slot)
        there = published.manifest.header.source
        message = f"{self._slot.folder} holds another dataset, from {there}."
        return DestinationTakenError(
            message,
            path=self._slot.folder,
            hint="Pass another dest, or refresh=True to put this one in its place.",
        )

    def _say_used(self, verdict: Verdict) -> None:
        if verdict.published.manifest is None:
            return
        header = verdict.published.manifest.header
        self._bar.close()
        away = " The source cannot be reached now." if self._resolver.unreachable else ""
        self._say_notes()
        self._say_empty(header.n_files)
        self._speaker.say(
            f"{self._label} is there already: {files_words(header.n_files)}"
            f" ({bytes_words(header.nbytes)}) in {self._slot.folder},"
            f" checked in {lasted_words(time.monotonic() - self._began_s)}.{away}"
        )

    def _say_notes(self) -> None:
        notes = self._resolver.notes()
        for note in notes.hints:
            self._speaker.say(note)
        # What is missing in the folder is said to everybody.
        for note in notes.losses:
            Printed().say(note)

    def _say_empty(self, n_files: int) -> None:
        # What reads the folder next would only say that it finds nothing there.
        if not n_files:
            Printed().say(f"{self._label} is empty: it holds no file. Check its path.")

    def _say_made(self, made: Made) -> None:
        if made.evicted:
            freed = sum(one.nbytes for one in made.evicted)
            names = ", ".join(one.folder.name for one in made.evicted)
            self._speaker.say(f"Deleted to make room ({bytes_words(freed)}): {names}.")
        if made.swap.kept is not None:
            self._speaker.say(
                f"The folder before held files that are not the dataset's: it is kept as"
                f" {made.swap.kept}."
            )
        self._say_empty(made.n_files)
        kept = f", {made.files_kept:,} of them from a call before" if made.files_kept else ""
        lasted_s = max(1e-3, time.monotonic() - self._began_s)
        self._speaker.say(
            f"{made.verb} {files_words(made.n_files)} ({bytes_words(made.nbytes)}{kept}) of"
            f" {self._label} into {self._slot.folder} in {lasted_words(lasted_s)}"
            f" ({bytes_words(made.nbytes / lasted_s)}/s)."
        )


def retrier_for(found: Found, watch: Watch) -> Retrier:
    """Returns what to do when a source fails in the middle."""
    if any(map(is_url, found.paths)):
        return Retrier(watch, location=found.name, patience_s=URL_PATIENCE_S)
    mount = asked(lambda: mount_of(found.name))
    return Retrier(watch, location=found.name, mount=mount)
