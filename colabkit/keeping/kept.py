"""A folder that is kept: asked for its newest checkpoint, flushed, closed."""

from __future__ import annotations

import os
import time
from pathlib import Path, PurePosixPath
from types import TracebackType

from colabkit.errors import ArgumentError, StorageError
from colabkit.keeping.opening import Opened, open_kept, sentence
from colabkit.keeping.options import KeepOptions
from colabkit.keeping.progress import KeepProgress
from colabkit.keeping.status import KeepStatus, status_card, status_of
from colabkit.keeping.wholeness import latest_in
from colabkit.notebook import Card, Printed, Silent, bytes_words, card_html, card_text
from colabkit.storage import RemountOutcome, volume_at

_PAUSES_S = (0.5, 2.0, 5.0, 15.0)
# What is being written when flush() is called is waited for so long.
_PATIENCE_S = 5.0
_ROUND_S = 60.0


class Kept:
    """A folder that is kept; made by ``keep``.

    Args:
        folder: The folder.
        to: Where it is kept.
        options: How it is kept.
        is_shown: Whether to say what happens.

    Attributes:
        path: The folder.

    Example:
        >>> import colabkit, tempfile
        >>> place = Path(tempfile.mkdtemp())
        >>> kept = colabkit.keep(place / "run", place / "safe", progress=False)
        >>> (kept / "last.pt").name, kept.latest("*.pt")
        ('last.pt', None)
        >>> kept.close()
    """

    def __init__(
        self, folder: Path, to: str | Path, options: KeepOptions, *, is_shown: bool
    ) -> None:
        self.path = folder
        self._to, self._options = to, options
        self._say = (Printed() if is_shown else Silent()).say
        self._opened: Opened = open_kept(folder, to, options, say=self._say)
        self._is_closed = False
        self._left_behind: set[str] = set()
        self._say(sentence(self._opened))
        self._tell_more()

    def _tell_more(self) -> None:
        brought = self._opened.brought
        for reason in brought.skipped:
            if brought.never_arrived:
                self._say(f"What the session before began to keep never arrived whole: {reason}")
            else:
                self._say(f"A newer version was not taken: {reason}")
        if brought.set_aside:
            where = next(iter(brought.set_aside.values()))
            self._say(f"What was here and differs is in {where}: {_named(brought.set_aside)}.")
        if self._opened.inputs:
            count, place = self._opened.inputs, f"in {self.path.name} before"
            self._say(
                f"The file that was {place} counts as input, and is kept once it changes."
                if count == 1
                else f"The {count:,} files that were {place} count as input, and are kept once they"
                " change."
            )

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str | os.PathLike[str]) -> Path:
        return self.path / name

    @property
    def location(self) -> str:
        """Where it is kept."""
        return self._opened.volume.location

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each file that is in its place, by its path in the folder."""
        return self._opened.keeper.hashes

    @property
    def is_closed(self) -> bool:
        """Whether it is kept no longer."""
        return self._is_closed

    def is_kept_as(self, to: str | Path, options: KeepOptions) -> bool:
        """Whether it is kept in a place in this way, and goes on to be."""
        return options == self._options and self.is_kept_in(to)

    def is_kept_in(self, to: str | Path) -> bool:
        """Whether it is kept in a place, and goes on to be."""
        if self._is_closed or self._opened.keeper.failure is not None:
            return False
        there, here = (
            os.path.normpath(each.anywhere) for each in (volume_at(to), self._opened.volume)
        )
        return to == self._to or there == here

    def latest(self, pattern: str | os.PathLike[str]) -> str | None:
        """Returns the newest whole file or folder that a pattern fits, None without one.

        Args:
            pattern: As "checkpoint-*", "weights/last.pt" or "**/last.pt"; without "/" it fits at
                any depth. What has brackets in its name is found by its name, too.

        Raises:
            ArgumentError: Nothing in the folder can ever fit it.
        """
        taker = self._opened.taker
        found = latest_in(
            self.path,
            _pattern_in(self.path, pattern),
            whole=self._options.whole,
            skip=self._options.skip,
            known=dict(taker.stamps),
            revisions=self._opened.keeper.revisions,
            inputs=taker.baseline,
        )
        if found.passed_over:
            self._say(f"{found.name} is the newest whole one: {found.passed_over}.")
        return None if found.name is None else str(self.path / found.name)

    @property
    def status(self) -> KeepStatus:
        """How far it is kept."""
        keeper = self._opened.keeper
        return status_of(keeper.progress, keeper.failure)

    def flush(self, *, timeout_s: float = 3600.0) -> None:
        """Waits until everything that is whole is in its place, and uploaded; on the main thread.

        Where the place does not tell what is uploaded, it waits only until all is written there.

        Args:
            timeout_s: How long, in seconds.

        Raises:
            LeaseLostError: Another session keeps its folder there now.
            StorageError: It is not there in time, or the place does not take it.
        """
        began_s, pauses_s = time.monotonic(), iter(_PAUSES_S)
        looked_s: float | None = None
        keeper = self._opened.keeper
        while not self._is_closed:
            asked_s = time.monotonic()
            seen = keeper.next_round(timeout_s=_ROUND_S)
            if keeper.failure is not None:
                raise keeper.failure
            progress = seen or keeper.progress
            now_s = time.monotonic()
            if looked_s is None and seen is not None:
                looked_s = now_s
            if progress.error is not None or keeper.busy_s >= _ROUND_S:
                self._try_again(progress, next(pauses_s, None))
            # A look may take minutes: what it found unfinished at its beginning is asked for again.
            elif seen is not None and _is_flushed(seen, asked_s - (looked_s or now_s)):
                self._tell_left_behind(progress.objections)
                return
            if now_s - began_s > timeout_s:
                raise self._not_kept(progress, "it is not uploaded in time")

    def _tell_left_behind(self, objections: tuple[str, ...]) -> None:
        """Says once of each what is not whole, and so not there."""
        new = [each for each in objections if each not in self._left_behind]
        self._left_behind.update(new)
        if new:
            more = f" and {len(new) - 3:,} more" if len(new) > 3 else ""
            place = self._opened.volume.location
            self._say(f"Not in {place} as it is now: {'; '.join(new[:3])}{more}.")

    def _try_again(self, progress: KeepProgress, pause_s: float | None) -> None:
        result = self.remount(now=True)
        if pause_s is None or result is RemountOutcome.REFUSED:
            raise self._not_kept(progress, str(progress.error)) from progress.error
        time.sleep(pause_s)
        self._opened.keeper.hurry()

    def _not_kept(self, progress: KeepProgress, why: str) -> StorageError:
        place = self._opened.volume.location
        message = f"{self.path} is not in {place} as it is: {why}"
        count = len(progress.waiting)
        wait = "1 file or folder waits" if count == 1 else f"{count:,} files and folders wait"
        hint = (
            f"It is whole on this machine: {wait} ({bytes_words(progress.waiting_nbytes)})."
            " Call flush() again once that is put right."
        )
        return StorageError(message, path=self.path, operation="keep", hint=hint)

    def remount(self, *, now: bool = False) -> RemountOutcome | None:
        """Mounts Drive again where it was lost; on the main thread, between two steps.

        Args:
            now: Whether to try at once, whatever the last tries came to.
        """
        mount, keeper = self._opened.mount, self._opened.keeper
        is_in_trouble = keeper.progress.error is not None or keeper.busy_s >= _ROUND_S
        if mount is None or self._is_closed or not is_in_trouble:
            return None
        outcome = mount.remount(now=now).outcome
        if outcome in {RemountOutcome.FINE, RemountOutcome.REMOUNTED}:
            keeper.hurry()
        return outcome

    def close(self) -> None:
        """Flushes, and keeps the folder no longer."""
        if self._is_closed:
            return
        try:
            if self._opened.keeper.failure is None:
                self.flush()
                if self.status.is_safe:
                    self._opened.notes.close()
        finally:
            self.end()

    def end(self) -> None:
        """Keeps the folder no longer, whatever is not in its place yet."""
        self._is_closed = True
        self._opened.keeper.close()

    def __enter__(self) -> Kept:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        # What went wrong inside is what the user must see.
        try:
            self.close()
        except (StorageError, RuntimeError) as not_kept:
            self._say(str(not_kept))

    def card(self) -> Card:
        """Returns how far it is kept as a card."""
        return status_card(self.status, str(self.path), self._opened.volume.location)

    def __repr__(self) -> str:
        return card_text(self.card())

    def _repr_html_(self) -> str:
        return card_html(self.card())


def _pattern_in(folder: Path, pattern: str | os.PathLike[str]) -> str:
    """Returns a pattern as seen from the folder.

    Raises:
        ArgumentError: Nothing in the folder can fit it: a training would begin anew unasked.
    """
    wanted = PurePosixPath(pattern)
    if wanted.is_absolute() and wanted.is_relative_to(folder):
        wanted = wanted.relative_to(folder)
    if wanted.is_absolute() or not wanted.parts or ".." in wanted.parts:
        message = f"{os.fspath(pattern)!r} fits nothing in {folder}."
        hint = 'Pass a pattern for names in the folder, as "checkpoint-*" or "weights/last.pt".'
        raise ArgumentError(message, argument="pattern", hint=hint)
    return str(wanted)


def _is_flushed(progress: KeepProgress, waited_s: float) -> bool:
    if len(progress.waiting) > len(progress.objections):
        return False
    if progress.newest is not progress.confirmed and not progress.is_silent:
        return False
    return not progress.objections or waited_s > _PATIENCE_S


def _named(names: dict[str, Path]) -> str:
    shown = ", ".join(list(names)[:3])
    return f"{shown}, …" if len(names) > 3 else shown
