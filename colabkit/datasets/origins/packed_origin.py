"""A folder that is packed once into an archive beside it, and unpacked from there."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from colabkit.datasets.archives.member_selection import chosen
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.cache.staging import Staging
from colabkit.datasets.folders.listing import FolderReader, Listing, list_folder
from colabkit.datasets.folders.mirroring import Before
from colabkit.datasets.origins.archive import ArchiveOrigin
from colabkit.datasets.origins.base import Contents, packed_path
from colabkit.datasets.packing.pack_call import check_target, pack_listed, pack_words
from colabkit.datasets.reading.progress import Watch
from colabkit.datasets.reading.retrying import Retry
from colabkit.errors import ArchiveCorruptError


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
        self._selection = selection
        self._listing: Listing | None = None
        self._archive = ArchiveOrigin(
            (str(self._target),),
            watch=watch,
            retry=retry,
            selection=selection,
            password=None,
            hashed="",
        )
        self.note = ""

    @property
    def notes(self) -> list[str]:
        """Sentences on what was done with some members."""
        return self._archive.notes

    def stamp(self) -> str:
        """Returns the fresh archive's stamp."""
        self._freshen()
        return self._archive.stamp()

    def contents(self) -> Contents:
        """Reads the fresh archive's table of contents."""
        listing = self._freshen()
        contents = self._archive.contents()
        return dataclasses.replace(contents, digest_as_folder=listing.digest)

    def fill(self, staging: Staging, before: Before | None) -> Sequence[Member]:
        """Unpacks the archive."""
        try:
            return self._archive.fill(staging, before)
        except ArchiveCorruptError as error:
            message = f"{self._target}, packed from the folder beside it, is damaged."
            hint = "Delete it and run this cell again: it is packed anew from the folder."
            raise ArchiveCorruptError(message, member=error.member, hint=hint) from error

    def checksum(self) -> str | None:
        """Has no hash that was asked for."""
        return None

    def _freshen(self) -> Listing:
        """Packs what changed since; returns what was asked for of the folder."""
        if self._listing is not None:
            return self._listing
        began_s, listed_ns = time.monotonic(), time.time_ns()
        check_target(self._target)
        listing = list_folder(
            self._root, reader=self._reader, check=self._watch.check, retry=self._retry
        )
        packed = pack_listed(
            self._root,
            listing,
            self._target,
            listed_ns=listed_ns,
            watch=self._watch,
            retry=self._retry,
            reader=self._reader,
        )
        if packed.is_new:
            lasted_s = time.monotonic() - began_s
            self.note = pack_words(packed, self._target, lasted_s=lasted_s)
        selects = chosen(self._selection)
        self._listing = listing if selects is None else listing.selected(selects)
        return self._listing
