"""Copying a folder of many small files by many threads: only what is new, and is complete."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from pathlib import Path
from typing import TypeVar

from colabkit.datasets.cache.manifest import Member, measure
from colabkit.datasets.cache.publishing import Staging
from colabkit.datasets.folders.listing import THREADS, FolderReader, Listing
from colabkit.datasets.reading.progress import Watch
from colabkit.datasets.reading.workers import Pool
from colabkit.errors import DatasetChangedError

STABLE_S = 2.0
PATIENCE_S = 20.0
_EMPTY_S = 3600.0
_SKEW_S = 60.0
_NS = 1e9
_READ_BYTES = 4 << 20
_LARGE_BYTES = 32 << 20
_RANGE_BYTES = 8 << 20
_RANGE_THREADS = 8
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, slots=True)
class StableListing:
    """A folder's complete files.

    Attributes:
        listing: The complete files.
        unfinished: Paths of the files that are still being written.
    """

    listing: Listing
    unfinished: tuple[str, ...]


def wait_until_stable(
    listing: Listing,
    *,
    stat_again: Callable[[Sequence[str]], Sequence[Member | None]],
    pause: Callable[[float], None],
    empty_is_unfinished: bool,
    now_s: Callable[[], float] = time.time,
    patience_s: float = PATIENCE_S,
) -> StableListing:
    """Waits until the files that were written just now have stopped changing.

    A file is complete when its size and time of change have been the same for two seconds.
    Nothing is waited for where every file is older than that.

    Args:
        listing: What the folder held at first sight.
        stat_again: Looks at files again; None for one that is gone.
        pause: Waits for some seconds.
        empty_is_unfinished: Whether a file of no bytes and of the last hour counts as one whose
            content is still to come.
        now_s: Seconds since the epoch.
        patience_s: How long to wait for files that go on changing.
    """
    began_s = now_s()
    unfinished: dict[str, Member | None] = {}
    if empty_is_unfinished:
        unfinished = {
            f.path: f for f in listing.files if not f.nbytes and _age_s(f, began_s) < _EMPTY_S
        }
    young = {f.path: f for f in listing.files if _age_s(f, began_s) < STABLE_S}
    young = {path: file for path, file in young.items() if path not in unfinished}
    fresh: dict[str, Member] = {}
    while young and now_s() - began_s < patience_s:
        pause(STABLE_S)
        seen = dict(zip(young, stat_again(list(young)), strict=True))
        fresh |= {path: file for path, file in young.items() if seen[path] == file}
        unfinished |= {path: None for path, file in seen.items() if file is None}
        young = {
            path: file for path, file in seen.items() if file is not None and path not in fresh
        }
    unfinished |= young
    files = [fresh.get(f.path, f) for f in listing.files if f.path not in unfinished]
    return StableListing(Listing(files, listing.folders), tuple(sorted(unfinished)))


def _age_s(file: Member, now_s: float) -> float:
    age_s = now_s - (file.mtime_ns or 0) / _NS
    # A time far in the future is another machine's clock and says nothing.
    return age_s if age_s > -_SKEW_S else _EMPTY_S


@dataclasses.dataclass(frozen=True, slots=True)
class Before:
    """An older copy of the same folder on this disk.

    Attributes:
        folder: Where it lies.
        members: Its files by path, with their own times of change.
    """

    folder: Path
    members: Mapping[str, Member]


def mirror(
    root: Path,
    listing: Listing,
    staging: Staging,
    *,
    watch: Watch,
    reader: FolderReader | None = None,
    retry: Callable[[OSError], None] | None = None,
    before: Before | None = None,
    threads: int = THREADS,
) -> list[Member]:
    """Copies the files of a folder that are not yet there.

    Args:
        root: The folder to copy.
        listing: What it holds.
        staging: Where the copy is built; what is whole there is left alone.
        watch: Is told every byte.
        reader: The calls to read the folder by.
        retry: Called on a failure; returns to go on at the same byte, raises to give up.
        before: An older copy, whose unchanged files are linked instead of read again.
        threads: How many files wait for the source at the same time.

    Returns:
        Every file, as copied.

    Raises:
        DatasetChangedError: A file changed while it was read.
        OSError: The folder cannot be read, or the copy not be written.
    """
    wanted = {file.path: file for file in listing.files}
    staging.drop({path for path, done in staging.done.items() if not _same(done, wanted.get(path))})
    for folder in listing.folders:
        (staging.tree / folder).mkdir(parents=True, exist_ok=True)
    if before is not None:
        _link_unchanged(before, wanted, staging)
    done = [staging.done[path] for path in wanted if path in staging.done]
    watch.add(nbytes=sum(member.nbytes for member in done), files=len(done))
    copier = _Copier(root, staging, watch, reader or FolderReader(), retry or _give_up)
    left = [file for file in listing.files if file.path not in staging.done]
    # The largest first: none of them is then still under way when all others are done.
    _run(copier.copy, sorted(left, key=lambda file: -file.nbytes), threads=threads)
    return [staging.done[path] for path in wanted]


def _same(done: Member, wanted: Member | None) -> bool:
    return wanted is not None and done._replace(crc32=None) == wanted._replace(crc32=None)


def _link_unchanged(before: Before, wanted: Mapping[str, Member], staging: Staging) -> None:
    for path, member in before.members.items():
        if path in staging.done or not _same(member, wanted.get(path)):
            continue
        with contextlib.suppress(OSError):
            status = os.lstat(before.folder / path)
            if (status.st_size, status.st_mtime_ns) == (member.nbytes, member.mtime_ns):
                os.link(before.folder / path, staging.tree / path, follow_symlinks=False)
                staging.note(member)


def _run(work: Callable[[Member], None], files: Sequence[Member], *, threads: int) -> None:
    with Pool(threads, "colabkit-copy") as pool:
        futures = [pool.submit(work, file) for file in files]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        for future in futures:
            if not future.cancelled():
                future.result()


def _give_up(error: OSError) -> None:
    raise error


class RetriedFile:
    """A file that is opened again at the same byte when reading it fails."""

    def __init__(self, path: Path, reader: FolderReader, retry: Callable[[OSError], None]) -> None:
        self._path = path
        self._reader = reader
        self._retry = retry
        self._descriptor = -1

    def read(self, nbytes: int, offset: int) -> bytes:
        """Returns up to ``nbytes`` from ``offset``."""
        return self._tried(lambda descriptor: self._reader.read(descriptor, nbytes, offset))

    def _tried(self, call: Callable[[int], Result]) -> Result:
        while True:
            try:
                if self._descriptor < 0:
                    self._descriptor = self._reader.open(self._path)
                return call(self._descriptor)
            except OSError as error:
                self.close()
                self._retry(error)

    def is_still(self, file: Member) -> bool:
        """Whether what was read is of the file that was listed."""
        return self._tried(lambda descriptor: self._reader.is_still(descriptor, file))

    def close(self) -> None:
        """Closes it; a later read opens it again."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


class _Copier:
    def __init__(
        self,
        root: Path,
        staging: Staging,
        watch: Watch,
        reader: FolderReader,
        retry: Callable[[OSError], None],
    ) -> None:
        self._root = root
        self._staging = staging
        self._watch = watch
        self._reader = reader
        self._retry = retry

    def copy(self, file: Member) -> None:
        self._watch.check()
        target = self._staging.tree / file.path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(target, flags, 0o644)
        try:
            if file.nbytes > _LARGE_BYTES:
                self._copy_ranges(file, descriptor)
                crc32 = measure(target)[1]
            else:
                crc32 = self._copy_range(file, descriptor, 0, file.nbytes)
            os.utime(descriptor, ns=(file.mtime_ns or 0, file.mtime_ns or 0))
        except BaseException as error:
            with contextlib.suppress(OSError):
                target.unlink()
            if isinstance(error, FileNotFoundError):
                raise self._changed(file) from error
            raise
        finally:
            os.close(descriptor)
        self._staging.note(file._replace(crc32=crc32))
        self._watch.add(files=1)

    def _copy_ranges(self, file: Member, descriptor: int) -> None:
        starts = range(0, file.nbytes, _RANGE_BYTES)
        with Pool(min(_RANGE_THREADS, len(starts)), "colabkit-range") as pool:
            ends = [min(start + _RANGE_BYTES, file.nbytes) for start in starts]
            list(pool.map(lambda a, b: self._copy_range(file, descriptor, a, b), starts, ends))

    def _copy_range(self, file: Member, descriptor: int, offset: int, end: int) -> int:
        source = RetriedFile(self._root / file.path, self._reader, self._retry)
        crc32 = 0
        try:
            while True:
                # One byte more than expected at the file's end shows that it has grown.
                more = end == file.nbytes
                piece = source.read(min(_READ_BYTES, end - offset + more), offset)
                if not piece:
                    break
                if offset + len(piece) > end:
                    raise self._changed(file)
                _write_all(descriptor, piece, offset)
                offset, crc32 = offset + len(piece), zlib.crc32(piece, crc32)
                self._watch.add(nbytes=len(piece))
                if offset == end:
                    break
            # A file rewritten in place while it was read is half old, half new.
            if offset != end or not source.is_still(file):
                raise self._changed(file)
        finally:
            source.close()
        return crc32

    def _changed(self, file: Member) -> DatasetChangedError:
        path = self._root / file.path
        message = f"{path} changed while it was read; it had {file.nbytes:,} bytes before."
        return DatasetChangedError(
            message, path=path, hint="Run this cell again once nobody writes to it."
        )


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
