"""The folder that is unpacked into: new files only, and nothing through a link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from colabkit.errors import DiskFullError, StorageError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Tree:
    """A folder that only its owner writes to while it is filled."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._prefix = f"{root}/"
        self._folders: set[str] = {""}

    def make_folders(self, folders: Iterable[str]) -> None:
        """Makes folders, those above before those below."""
        for folder in folders:
            if folder not in self._folders:
                try:
                    Path(self._prefix + folder).mkdir()
                except FileExistsError:
                    self._check_folder(folder)
                except OSError as error:
                    raise self._failure(folder, error) from error
                self._folders.add(folder)

    def create(self, path: str, mode: int) -> int:
        """Opens a new file for writing; what an earlier, killed call left there is replaced."""
        permissions = 0o755 if mode & 0o111 else 0o644
        name = self._prefix + path
        try:
            return os.open(name, _FLAGS, permissions)
        except FileExistsError:
            try:
                Path(name).unlink()
                return os.open(name, _FLAGS, permissions)
            except OSError as error:
                raise self._failure(path, error) from error
        except OSError as error:
            raise self._failure(path, error) from error

    def write(self, descriptor: int, data: bytes | memoryview, path: str) -> None:
        """Appends all of a buffer; one system call as a rule."""
        try:
            done = os.write(descriptor, data)
            while done < len(data):
                done += os.write(descriptor, memoryview(data)[done:])
        except OSError as error:
            raise self._failure(path, error) from error

    def put(self, path: str, data: bytes | memoryview, mode: int) -> None:
        """Writes a whole small file."""
        descriptor = self.create(path, mode)
        try:
            if data:
                self.write(descriptor, data, path)
        finally:
            os.close(descriptor)

    def link(self, path: str, target: str) -> None:
        """Gives a file that was unpacked a second name."""
        try:
            self._unlink(path)
            os.link(self._prefix + target, self._prefix + path, follow_symlinks=False)
        except OSError as error:
            raise self._failure(path, error) from error

    def symlink(self, path: str, target: str) -> None:
        """Makes a link to a folder of the tree."""
        depth = path.count("/")
        try:
            self._unlink(path)
            Path(self._prefix + path).symlink_to("../" * depth + target)
        except OSError as error:
            raise self._failure(path, error) from error

    def _unlink(self, path: str) -> None:
        Path(self._prefix + path).unlink(missing_ok=True)

    def _check_folder(self, folder: str) -> None:
        if not stat.S_ISDIR(os.lstat(self._prefix + folder).st_mode):
            message = f"{self._prefix}{folder} is in the way: a folder is to be made there."
            raise StorageError(
                message, path=self._prefix + folder, operation="mkdir", hint="Remove it."
            )

    def _failure(self, path: str, error: OSError) -> StorageError:
        where = self._prefix + path
        if error.errno in _FULL:
            status = os.statvfs(self._root)
            message = f"The disk is full: {where} cannot be written."
            hint = "Free some space, then run the cell again; what is whole is kept."
            return DiskFullError(
                message, path=where, free_bytes=status.f_bavail * status.f_frsize, hint=hint
            )
        message = f"{where} cannot be written ({error.strerror})."
        return StorageError(message, path=where, operation="write")
