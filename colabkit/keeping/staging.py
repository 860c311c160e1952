"""Takes a file as it is at one instant, while its trainer goes on writing others over it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash

from colabkit.errors import DiskFullError
from colabkit.keeping.scanning import Stamp
from colabkit.keeping.version import Content
from colabkit.storage import Bytes

SMALL_BYTES = 256 << 10
_READ_BYTES = 8 << 20
_FICLONE = 0x40049409
# A file's clock ticks so coarsely that two writes may have one time; some disks tell only seconds.
_TICK_S, _COARSE_TICK_S = 0.02, 2.1
_SPARE_BYTES = 200_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file, after what is kept of it.

    Attributes:
        start: Where it begins, in bytes.
        hash: The XXH3 128-bit hash of its bytes.
    """

    start: int
    hash: str


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """A file as it was.

    Attributes:
        stamp: Its stamp then.
        mode: Its permissions.
        hash: The XXH3 128-bit hash of its bytes.
        data: Its bytes where it is small.
        place: Where its bytes are, None for a small one.
        tail: What was added to what is kept of it, where it only grew.
    """

    stamp: Stamp
    mode: int
    hash: str
    data: bytes = b""
    place: Path | None = None
    tail: Tail | None = None

    def pieces(self) -> Iterator[Bytes]:
        """Yields its bytes, of one that only grew those that were added.

        Raises:
            ChangedError: It was written over meanwhile.
        """
        if self.place is None:
            yield np.frombuffer(self.data, np.uint8)
            return
        start, told = (self.tail.start, self.tail.hash) if self.tail else (0, self.hash)
        digest = xxhash.xxh3_128()
        for piece in read_pieces(self.place, start):
            digest.update(piece)
            yield np.frombuffer(piece, np.uint8)
        if digest.hexdigest() != told:
            raise ChangedError(str(self.place))


class ChangedError(Exception):
    """A file was written over while it was taken."""


class StagingArea:
    """Where files lie from the moment they are taken until the volume has them.

    Args:
        folder: The kept folder.
        area: Where to put them; on the same disk they take no room.
    """

    def __init__(self, folder: Path, area: Path) -> None:
        self._folder = folder
        self._area = area
        self._in_place: set[str] = set()
        self._last: dict[str, Stamp] = {}
        self.clear()

    def clear(self) -> None:
        """Removes what is in it."""
        shutil.rmtree(self._area, ignore_errors=True)

    def take(self, path: str, stamp: Stamp, known: Content | None = None) -> Taken:
        """Takes a file as it is.

        A second name for it costs nothing, and outlives its removal. A file that is written
        over in its place is copied instead.

        Args:
            path: Its path in the folder.
            stamp: Its stamp.
            known: What is kept of it.

        Raises:
            ChangedError: It was written over meanwhile, or is gone.
            DiskFullError: There is no room for a copy.
        """
        before, self._last[path] = self._last.get(path), stamp
        if before is not None and before.inode == stamp.inode and before != stamp:
            self._in_place.add(path)
        age_s = time.time() - stamp.mtime_ns / 1e9
        tick_s = _COARSE_TICK_S if stamp.mtime_ns % 1_000_000_000 == 0 else _TICK_S
        if 0 <= age_s < tick_s:
            time.sleep(tick_s - age_s)
        try:
            taken = self._take(path, stamp, known)
        except FileNotFoundError as error:
            raise ChangedError(path) from error
        except ChangedError:
            self._in_place.add(path)
            raise
        return taken

    def _take(self, path: str, stamp: Stamp, known: Content | None) -> Taken:
        source = self._folder / path
        if stamp.nbytes <= SMALL_BYTES:
            with source.open("rb") as file:
                mode = _require_same(file.fileno(), stamp, path)
                data = file.read(SMALL_BYTES + 1)
                _require_same(file.fileno(), stamp, path)
            return Taken(stamp, mode, xxhash.xxh3_128(data).hexdigest(), data)
        self._area.mkdir(parents=True, exist_ok=True)
        place = self._area / uuid.uuid4().hex
        if path in self._in_place or not _linked(source, place):
            self._copy(source, place, stamp, path)
            mode = source.stat().st_mode & 0o777
            told, tail = _hashes(place, known)
        else:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                mode = _require_same(descriptor, stamp, path)
                told, tail = _hashes(place, known)
                _require_same(descriptor, stamp, path)
            finally:
                os.close(descriptor)
        return Taken(stamp, mode, told, place=place, tail=tail)

    def _copy(self, source: Path, place: Path, stamp: Stamp, path: str) -> None:
        with source.open("rb") as file:
            _require_same(file.fileno(), stamp, path)
            with place.open("xb") as copy:
                if not _cloned(file.fileno(), copy.fileno()):
                    self._require_room(stamp.nbytes)
                    shutil.copyfileobj(file, copy, _READ_BYTES)
            _require_same(file.fileno(), stamp, path)

    def _require_room(self, nbytes: int) -> None:
        free = shutil.disk_usage(self._area).free
        if nbytes + _SPARE_BYTES > free:
            message = (
                f"This machine's disk has {free / 1e6:,.0f} MB free: too little for a copy of"
                f" {nbytes / 1e6:,.0f} MB."
            )
            hint = "Delete what you no longer need on it; training goes on, and is not kept so far."
            raise DiskFullError(
                message, path=self._area, needed_bytes=nbytes, free_bytes=free, hint=hint
            )


def is_as_taken(path: Path, taken: Taken, *, since_s: float) -> bool:
    """Whether a small file still holds what was taken of it, where its stamp alone may lie.

    Args:
        path: The file.
        taken: What was taken.
        since_s: When the folder was looked at, in seconds since the epoch; what was written long
            before has another stamp when it is written again.
    """
    if taken.stamp.mtime_ns / 1e9 < since_s - _COARSE_TICK_S:
        return True
    try:
        with path.open("rb") as file:
            data = file.read(SMALL_BYTES + 1)
            is_same_stamp = Stamp.of(os.fstat(file.fileno())) == taken.stamp
    except OSError:
        return True
    return data == taken.data or not is_same_stamp


def _require_same(descriptor: int, stamp: Stamp, path: str) -> int:
    status = os.fstat(descriptor)
    if Stamp.of(status) != stamp:
        raise ChangedError(path)
    return status.st_mode & 0o777


def _linked(source: Path, place: Path) -> bool:
    """Gives a file a second name, where both are on one disk and it may have one."""
    try:
        place.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def _cloned(source: int, target: int) -> bool:
    """Has the file system share a file's bytes, where it can."""
    try:
        fcntl = __import__("fcntl")
        fcntl.ioctl(target, _FICLONE, source)
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        return False
    return True


def _hashes(path: Path, known: Content | None) -> tuple[str, Tail | None]:
    """Returns a file's hash, and its tail where it begins with all that is known of it."""
    whole, tail = xxhash.xxh3_128(), xxhash.xxh3_128()
    start = 0 if known is None or known.is_bundled else known.nbytes
    place, is_grown = 0, False
    for piece in read_pieces(path):
        ends = place + len(piece)
        if place < start <= ends:
            whole.update(piece[: start - place])
            is_grown = known is not None and whole.hexdigest() == known.hash
            piece, place = piece[start - place :], start
        whole.update(piece)
        if is_grown:
            tail.update(piece)
        place = ends
    return whole.hexdigest(), Tail(start, tail.hexdigest()) if is_grown and place > start else None


def read_pieces(path: Path, start: int = 0) -> Iterator[bytes]:
    """Yields a file's bytes, piece after piece.

    Args:
        path: The file.
        start: Where to begin, in bytes.
    """
    with path.open("rb", buffering=0) as file:
        with contextlib.suppress(AttributeError, OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        file.seek(start)
        while data := file.read(_READ_BYTES):
            yield data


def hash_file(path: Path) -> str:
    """Returns the XXH3 128-bit hash of a file's bytes."""
    return _hashes(path, None)[0]
