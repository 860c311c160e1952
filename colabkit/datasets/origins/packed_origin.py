"""A folder that is packed once into an archive beside it, and unpacked from there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from colabkit.datasets.cache import Member, Staging
from colabkit.datasets.folders import Before, FolderReader, list_folder
from colabkit.datasets.origins.archive_origin import ArchiveOrigin
from colabkit.datasets.origins.origin import Contents
from colabkit.datasets.packing import Packed, check_target, pack_listed, pack_words
from colabkit.datasets.transfer import Retry, Watch


def packed_path(root: Path) -> Path:
    """Returns where the archive of a folder lies.

    Example:
        >>> packed_path(Path("/content/drive/MyDrive/cats")).name
        'cats.packed.zip'
    """
    return root.with_name(f"{root.name}.packed.zip")


class PackedOrigin:
    """A folder through its archive, which is made or made fresh first.

    Args:
        root: The folder.
        watch: Is told how far it is.
        retry: Called when the folder does not answer.
        selection: Members wanted, None for all.
        reader: The calls to read the folder by.
    """

    def __init__(
        self,
        root: Path,
        *,
        watch: Watch,
        retry: Retry,
        selection: tuple[str, ...] | None,
        reader: FolderReader | None = None,
    ) -> None:
        self._root = root
        self._target = packed_path(root)
        self._watch = watch
        self._retry = retry
        self._reader = reader or FolderReader()
        self._packed: Packed | None = None
        self._archive = ArchiveOrigin(
            (str(self._target),),
            watch=watch,
            retry=retry,
            selection=selection,
            password=None,
            hashed=False,
        )
        self.note = ""

    def stamp(self) -> str:
        """Returns the fresh archive's stamp."""
        self._freshen()
        return self._archive.stamp()

    def contents(self) -> Contents:
        """Reads the fresh archive's table of contents."""
        self._freshen()
        return self._archive.contents()

    def fill(self, staging: Staging, before: Before | None) -> Sequence[Member]:
        """Unpacks the archive."""
        return self._archive.fill(staging, before)

    def sha256(self) -> str | None:
        """Has no hash that was asked for."""
        return None

    def _freshen(self) -> None:
        if self._packed is not None:
            return
        began_s, listed_ns = time.monotonic(), time.time_ns()
        check_target(self._target)
        listing = list_folder(
            self._root, reader=self._reader, check=self._watch.check, retry=self._retry
        )
        self._packed = pack_listed(
            self._root,
            listing,
            self._target,
            listed_ns=listed_ns,
            watch=self._watch,
            retry=self._retry,
            reader=self._reader,
        )
        if self._packed.is_new:
            lasted_s = time.monotonic() - began_s
            self.note = pack_words(self._packed, self._target, lasted_s=lasted_s)
