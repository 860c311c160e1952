"""A folder on Drive as a volume: nothing is written but into a live mount."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from colabkit.errors import StorageError
from colabkit.storage.drive_mount import DEFAULT_MOUNTPOINT, DriveMount
from colabkit.storage.files import Files
from colabkit.storage.local import LocalVolume, T
from colabkit.storage.mounter import Naming
from colabkit.storage.outages import LOST, patiently
from colabkit.storage.volume import Bytes


class DriveVolume(LocalVolume):
    """Blobs in a folder on Drive.

    A folder is made only below the root of My Drive, which a bare mountpoint lacks, so that
    nothing ever lands there and stands in the way of the next mount.

    Args:
        root: The folder, as a path of this machine.
        mount: The mount it lies on.
        files: The primitive operations.
        sleep: Waits some seconds, for tests.
    """

    is_slow = True

    def __init__(
        self,
        root: Path,
        mount: DriveMount,
        files: Files | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.mount = mount
        self._sleep = sleep
        # Drive keeps what is removed in its trash, and that counts: files are emptied first.
        super().__init__(root, files, empty_first=True)

    @property
    def identity(self) -> str:
        """The same for the same folder of the same Drive, wherever that is mounted."""
        mounter = self.mount.mounter
        drive = mounter.drive if isinstance(mounter, Naming) else ""
        return " ".join(filter(None, [drive, self.anywhere]))

    @property
    def anywhere(self) -> str:
        """A path that leads to the folder wherever the same Drive is mounted."""
        if not isinstance(self.mount.mounter, Naming):
            return str(self.root.absolute())
        return f"{DEFAULT_MOUNTPOINT}/{self.root.relative_to(self.mount.mountpoint).as_posix()}"

    def _try(self, call: Callable[[], T]) -> T:
        return patiently(call, sleep=self._sleep)

    def write(self, name: str, parts: Iterable[Bytes]) -> None:
        """Publishes a blob under a name; on failure nothing is left under it."""
        self.mount.require()
        super().write(name, parts)
        self.mount.note_written(self._path(name))

    def delete(self, names: Iterable[str]) -> None:
        """Empties and removes blobs; those already gone are no error."""
        gone = list(names)
        super().delete(gone)
        for name in gone:
            self.mount.note_gone(self._path(name))

    def list(self, folder: str) -> dict[str, int]:
        """Returns the names of the files in a folder and their sizes, {} when there is none."""
        found = super().list(folder)
        if not found:
            # A dead mount may say that a folder does not exist: missing is not lost.
            self.mount.require()
        return found

    def _vanished(self) -> None:
        self.mount.require()  # or all of them went away, with the mount

    def confirmed(self, names: Iterable[str]) -> bool | None:
        """Returns whether all of these are uploaded, None where Drive does not say."""
        self.mount.require()
        paths = [self._path(name) for name in names]
        answers = [self.mount.is_uploaded(path) for path in paths]
        for path, answer in zip(paths, answers, strict=True):
            if answer:
                self.mount.note_gone(path)
        if any(answer is False for answer in answers):
            return False
        return None if any(answer is None for answer in answers) else True

    def _make_folder(self, folder: Path) -> None:
        if folder in self._folders:
            return
        missing = []
        while folder != self.mount.root and not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        self.mount.require()
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):
                each.mkdir()
        self._folders.update(missing[:1])

    @contextlib.contextmanager
    def _explained(self, path: Path, operation: str) -> Iterator[None]:
        with super()._explained(path, operation):
            try:
                yield
            except FileNotFoundError:
                self.mount.require()
                raise
            except OSError as error:
                if error.errno in LOST:
                    raise self.mount.lost_error() from error
                if error.errno == errno.ETIMEDOUT:
                    raise self.mount.lost_error(os.strerror(error.errno)) from error
                if error.errno == errno.EROFS:
                    message = f"Drive at {self.mount.mountpoint} is mounted to be read only."
                    hint = (
                        "Run colabkit.mount(readonly=False) to write to it, or pass a folder of"
                        " another place."
                    )
                    raise StorageError(
                        message, path=path, operation=operation, hint=hint
                    ) from error
                raise
