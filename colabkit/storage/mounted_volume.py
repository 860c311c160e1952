"""A folder on a file system that somebody mounted as a volume: never the bare folder below it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from colabkit.errors import StorageError
from colabkit.storage.local import LocalVolume, T
from colabkit.storage.mounts import is_mountpoint, mounted_below
from colabkit.storage.outages import patiently
from colabkit.storage.volume import Bytes


class MountedVolume(LocalVolume):
    """Blobs in a folder on a network or FUSE file system.

    Once that is unmounted, the folder's path leads to this machine's own disk: what was
    written there would be taken for safe, and be gone with the machine.

    Args:
        root: The folder.
    """

    def __init__(self, root: str | Path) -> None:
        # Many keep what is removed in a trash, and that counts: files are emptied first.
        super().__init__(root, empty_first=True)
        self._mounted = mounted_below(self.root)

    def _try(self, call: Callable[[], T]) -> T:
        return patiently(call)

    def write(self, name: str, parts: Iterable[Bytes]) -> None:
        """Publishes a blob under a name; on failure nothing is left under it."""
        self._require()
        super().write(name, parts)

    def confirmed(self, names: Iterable[str]) -> bool | None:  # noqa: ARG002  # none is asked
        """Returns whether all of these are safe, None where the file system does not say.

        One in a program's hands (rclone, s3fs) may take what is written into a cache of its own,
        and upload it later.
        """
        return None if self._mounted is not None and self._mounted.kind.startswith("fuse") else True

    def list(self, folder: str) -> dict[str, int]:
        """Returns the names of the files in a folder and their sizes, {} when there is none."""
        found = super().list(folder)
        if not found:
            self._require()
        return found

    def _vanished(self) -> None:
        self._require()

    def _require(self) -> None:
        if self._mounted is None or is_mountpoint(self._mounted.mountpoint):
            return
        place = self._mounted.mountpoint
        message = f"{self.root} is on {place}, which is not mounted any more."
        hint = "Mount it again as you did the first time: what waits here is copied there then."
        raise StorageError(message, path=self.root, operation="reach", hint=hint)
