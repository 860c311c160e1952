"""The folder that is unpacked into: new files only, and nothing through a link."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from colabkit.datasets.writing import small_files
from colabkit.errors import DiskFullError, StorageError
from colabkit.storage import FULL

_CASES = ("\u00e4", "\u00c4", "a\u0308")


class Tree:
    """A folder that only its owner writes to while it is filled."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.prefix = f"{root.absolute()}/"
        self._folders: set[str] = {""}

    @functools.cached_property
    def keeps_case(self) -> bool:
        """Whether the disk tells names apart that differ in case, or in how accents are coded."""
        probe, *others = (f"{self.prefix}.colabkit-{os.getpid()}-{end}" for end in _CASES)
        os.close(os.open(probe, small_files.FLAGS, 0o600))
        try:
            return not any(map(os.path.lexists, others))
        finally:
            Path(probe).unlink()

    def make_folders(self, folders: Iterable[str]) -> None:
        """Makes folders, those above before those below."""
        for folder in folders:
            if folder not in self._folders:
                try:
                    Path(self.prefix + folder).mkdir()
                except FileExistsError:
                    self._check_folder(folder)
                except OSError as error:
                    raise self.failure(folder, error) from error
                self._folders.add(folder)

    def create(self, path: str, mode: int) -> int:
        """Opens a new file for writing; what an earlier, killed call left there is replaced."""
        try:
            return small_files.create(self.prefix + path, small_files.permissions_of(mode))
        except OSError as error:
            raise self.failure(path, error) from error

    def write(self, descriptor: int, data: bytes | memoryview, path: str) -> None:
        """Appends all of a buffer; one system call as a rule."""
        try:
            done = os.write(descriptor, data)
            while done < len(data):
                done += os.write(descriptor, memoryview(data)[done:])
        except OSError as error:
            raise self.failure(path, error) from error

    def put(self, path: str, data: small_files.Content, mode: int, time_s: float) -> None:
        """Writes a whole small file."""
        try:
            small_files.put(self.prefix + path, data, mode, time_s)
        except OSError as error:
            raise self.failure(path, error) from error

    def link(self, path: str, target: str) -> None:
        """Gives a file that was unpacked a second name."""
        try:
            self._unlink(path)
            os.link(self.prefix + target, self.prefix + path, follow_symlinks=False)
        except OSError as error:
            raise self.failure(path, error) from error

    def symlink(self, path: str, target: str) -> None:
        """Makes a link to a folder of the tree."""
        depth = path.count("/")
        try:
            self._unlink(path)
            Path(self.prefix + path).symlink_to("../" * depth + target)
        except OSError as error:
            raise self.failure(path, error) from error

    def date(self, file: int | str, time_s: float) -> None:
        """Gives a file the time at which it was changed, by its descriptor or its path."""
        small_files.date(self.prefix + file if isinstance(file, str) else file, time_s)

    def remove(self, path: str) -> None:
        """Removes a file."""
        self._unlink(path)

    def remove_folders(self, folders: Iterable[str]) -> None:
        """Removes those of some folders that are empty."""
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(OSError):
                Path(self.prefix + folder).rmdir()
                self._folders.discard(folder)

    def _unlink(self, path: str) -> None:
        Path(self.prefix + path).unlink(missing_ok=True)

    def _check_folder(self, folder: str) -> None:
        if not stat.S_ISDIR(os.lstat(self.prefix + folder).st_mode):
            message = f"{self.prefix}{folder} is in the way: a folder is to be made there."
            raise StorageError(
                message, path=self.prefix + folder, operation="mkdir", hint="Remove it."
            )

    def failure(self, path: str, error: OSError) -> StorageError:
        """Returns the error for a file that cannot be written."""
        where = self.prefix + path
        if error.errno in FULL:
            status = os.statvfs(self._root)
            message = f"The disk is full: {where} cannot be written."
            hint = "Free some space, then run the cell again; what is whole is kept."
            return DiskFullError(
                message, path=where, free_bytes=status.f_bavail * status.f_frsize, hint=hint
            )
        message = f"{where} cannot be written ({error.strerror})."
        return StorageError(message, path=where, operation="write")
