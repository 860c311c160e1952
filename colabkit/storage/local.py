"""A folder of a mounted file system as a volume."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from colabkit.errors import DiskFullError, StorageError
from colabkit.storage.files import Files
from colabkit.storage.outages import FULL
from colabkit.storage.programs import CACHE_HINT, is_in_cache
from colabkit.storage.volume import Bytes

T = TypeVar("T")

_TEMPORARY = ".colabkit-tmp-"
_SESSION = uuid.uuid4().hex[:12]
_READ_BYTES = 8 << 20
_READERS = 4
_FULL_HINT = "Delete what you no longer need there, or pass a folder elsewhere."
_FULL_CACHE_HINT = "Delete what you no longer need there, or set COLABKIT_CACHE to a larger disk."


class LocalVolume:
    """Blobs in a folder; each is written aside, made durable, then given its name.

    Args:
        root: The folder, made when the first blob is written.
        files: The primitive operations.
        empty_first: Empty a file before it is removed, where a trash keeps what was removed.

    Raises:
        StorageError: ``root`` is a file, or cannot be looked at.
    """

    def __init__(
        self, root: str | Path, files: Files | None = None, *, empty_first: bool = False
    ) -> None:
        self._empty_first = empty_first
        self.is_slow = empty_first
        # A notebook may change its folder while a run is under way, which stays where it began.
        self.root = Path(root).expanduser().absolute()
        self.location = str(root)
        self._files = files or Files()
        self._folders: set[Path] = set()
        if self._try(self._is_file):
            message = f"{self.root} is a file, not a folder."
            hint = "Pass the path of a folder, or one that does not exist yet."
            raise StorageError(message, path=self.root, operation="open", hint=hint)

    @property
    def anywhere(self) -> str:
        """What opens it again, in another process."""
        return str(self.root)

    @property
    def identity(self) -> str:
        """What no other place has."""
        return self.anywhere

    def _try(self, call: Callable[[], T]) -> T:
        """Tries a call once: this machine's own disk does not change its mind."""
        return call()

    def _is_file(self) -> bool:
        with self._explained(self.root, "open"):
            return self.root.exists() and not self.root.is_dir()

    def write(self, name: str, parts: Iterable[Bytes]) -> None:
        """Publishes a blob under a name; on failure nothing is left under it.

        Raises:
            DiskFullError: The disk is full.
            StorageError: The folder cannot be written.
        """
        if isinstance(parts, Sequence):
            self._try(lambda: self._write(name, parts))
        else:
            self._write(name, parts)

    def _write(self, name: str, parts: Iterable[Bytes]) -> None:
        target = self._path(name)
        with self._explained(target, "write"):
            self._make_folder(target.parent)
            unique = f"{os.getpid()}-{_SESSION}-{uuid.uuid4().hex[:8]}"
            temporary = target.parent / f"{_TEMPORARY}{unique}"
            try:
                descriptor = self._files.create(temporary)
                try:
                    for part in parts:
                        self._files.write(descriptor, part)
                    self._files.fsync(descriptor)
                finally:
                    self._files.close(descriptor)
                self._files.rename(temporary, target)
            except BaseException:
                # Somebody may have removed the folders: the next write makes them anew.
                self._folders.clear()
                with contextlib.suppress(OSError):
                    self._files.unlink(temporary)
                raise
            self._files.fsync_folder(target.parent)

    def read(self, name: str) -> Bytes:
        """Returns a blob in memory of its own, read in parallel.

        Raises:
            StorageError: It is not there or cannot be read.
        """
        return self._try(lambda: self._read(name))

    def _read(self, name: str) -> Bytes:
        path = self._path(name)
        with self._explained(path, "read"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                data = np.empty(os.fstat(descriptor).st_size, np.uint8)
                _read_all(descriptor, data)
            finally:
                os.close(descriptor)
        return data

    def list(self, folder: str) -> dict[str, int]:
        """Returns the names of the files in a folder and their sizes, {} when there is none."""
        return self._try(lambda: self._list(folder))

    def _list(self, folder: str) -> dict[str, int]:
        path = self._path(folder)
        sizes: dict[str, int] = {}
        with self._explained(path, "list"):
            try:
                entries = os.scandir(path)
            except FileNotFoundError:
                return sizes
            with entries:
                for entry in entries:
                    is_temporary = entry.name.startswith(_TEMPORARY)
                    if is_temporary or not entry.is_file(follow_symlinks=False):
                        continue
                    try:
                        sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        self._vanished()
        return sizes

    def _vanished(self) -> None:
        """Told of a file that went away while it was listed: here, somebody removed it."""

    def delete(self, names: Iterable[str]) -> None:
        """Removes blobs; those already gone are no error."""
        gone = tuple(names)
        self._try(lambda: self._delete(gone))

    def _delete(self, names: Iterable[str]) -> None:
        folders = set()
        for name in names:
            path = self._path(name)
            with self._explained(path, "delete"), contextlib.suppress(FileNotFoundError):
                if self._empty_first:
                    self._files.truncate(path)
                self._files.unlink(path)
                folders.add(path.parent)
        for folder in folders:
            self._files.fsync_folder(folder)

    def free_bytes(self) -> int | None:
        """Returns the room left on the disk."""
        existing = next(p for p in (self.root, *self.root.absolute().parents) if p.exists())
        return shutil.disk_usage(existing).free

    def sweep(self) -> None:
        """Removes what writers that are dead have left aside.

        Raises:
            StorageError: The folder cannot be looked at.
        """
        self._try(self._sweep)

    def _sweep(self) -> None:
        with self._explained(self.root, "list"):
            folders = [self.root, *(path for path in self.root.glob("*") if path.is_dir())]
            temporary = [path for folder in folders for path in folder.glob(f"{_TEMPORARY}*")]
        for path in temporary:
            if _is_left_behind(path.name):
                with contextlib.suppress(OSError):
                    self._files.unlink(path)

    def _path(self, name: str) -> Path:
        parts = Path(name).parts
        if not name or Path(name).is_absolute() or ".." in parts:
            message = f"The name {name!r} leads out of {self.root}."
            raise StorageError(message, path=self.root, operation="open")
        return self.root / name

    def _make_folder(self, folder: Path) -> None:
        if folder not in self._folders:
            self._files.make_folder(folder)
            self._folders.add(folder)

    @contextlib.contextmanager
    def _explained(self, path: Path, operation: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise self._explanation(error, path, operation) from error

    def _explanation(self, error: OSError, path: Path, operation: str) -> StorageError:
        if error.errno in FULL:
            with contextlib.suppress(OSError):
                free = self.free_bytes() or 0
                message = f"The disk of {self.root} is full ({free / 1e6:.0f} MB free)."
                return DiskFullError(
                    message,
                    path=path,
                    free_bytes=free,
                    hint=_FULL_CACHE_HINT if is_in_cache(path) else _FULL_HINT,
                )
        if is_in_cache(path):
            hint = CACHE_HINT
        elif error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            hint = "Pass a folder that you may write to."
        elif error.errno in {errno.ENOTCONN, errno.EIO}:
            hint = "Its disk fails, or its mount was lost: if that is Drive, mount it again."
        else:
            hint = "Check the path, and that its disk is mounted."
        message = f"Could not {operation} {path}: {os.strerror(error.errno or 0)}."
        return StorageError(message, path=path, operation=operation, hint=hint)


def _is_left_behind(name: str) -> bool:
    """Whether the writer of what lies aside is dead; in a container all have one number."""
    pid, _, rest = name.removeprefix(_TEMPORARY).partition("-")
    import psutil  # imported on use

    if not pid.isdigit() or not psutil.pid_exists(int(pid)):
        return True
    return int(pid) == os.getpid() and not rest.startswith(f"{_SESSION}-")


def _read_all(descriptor: int, data: Bytes) -> None:
    def read_piece(start: int) -> None:
        view = data.data[start : start + _READ_BYTES]
        while view:
            count = os.preadv(descriptor, [view], start)
            if not count:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            view, start = view[count:], start + count

    starts = range(0, len(data), _READ_BYTES)
    if len(starts) <= 1:
        for start in starts:
            read_piece(start)
        return
    with ThreadPoolExecutor(min(_READERS, len(starts)), "colabkit-read") as readers:
        list(readers.map(read_piece, starts))
