"""Origins made of others: archives in archives, and a folder that is packed once beside itself."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from colabkit.datasets.archives.safety import chosen
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.cache.publishing import Staging
from colabkit.datasets.folders.listing import FolderReader, Listing, list_folder
from colabkit.datasets.folders.mirroring import Before
from colabkit.datasets.origins.archive import ArchiveOrigin
from colabkit.datasets.origins.base import Contents, Notes, packed_path
from colabkit.datasets.origins.parts import ARCHIVE_SUFFIXES, is_to_be_unpacked, stem_of
from colabkit.datasets.packing.pack_call import check_target, pack_listed, pack_words
from colabkit.datasets.reading.progress import Phase, Watch
from colabkit.datasets.reading.retrying import Retry
from colabkit.datasets.reading.source import open_source
from colabkit.datasets.reading.split_names import SplitArchive, folder_of, gathered, name_of
from colabkit.datasets.reading.wrappers import JoinedSource
from colabkit.errors import ArchiveCorruptError, ArchiveError, DatasetClashError

_OUTER = "outer"
_NAMES_SHOWN = 3
_HINT = "Leave nested=True out, and unpack the inner archives by a call each."


class NestedOrigin:
    """An archive whose members are archives, as a zip of zips or ImageNet's tar of tars.

    Args:
        outer: The archive itself.
        watch: Is told how far it is.
        retry: Called when the source does not answer.
    """

    def __init__(self, outer: ArchiveOrigin, *, watch: Watch, retry: Retry) -> None:
        self._outer = outer
        self._watch = watch
        self._retry = retry
        self._losses: list[str] = []

    def stamp(self) -> str:
        """Returns the outer archive's stamp."""
        return self._outer.stamp()

    def contents(self) -> Contents:
        """Returns what is known before the inner archives are there: at least the outer one's."""
        contents = self._outer.contents()
        key = f"nested {contents.staging_key}"
        digest = f"{contents.digest}-nested"
        return dataclasses.replace(contents, digest=digest, staging_key=key, files=None)

    def fill(self, staging: Staging, before: Before | None) -> Sequence[Member]:  # noqa: ARG002
        """Unpacks the outer archive beside the tree, then the inner ones into it."""
        staging.remove(list(staging.unproven))
        outer = staging.tree.parent / _OUTER
        shutil.rmtree(outer, ignore_errors=True)
        outer.mkdir()
        members: dict[str, Member] = {}
        unpacked = self._outer.unpack_into(outer)
        inner = self._archives(outer, [member.path for member in unpacked])
        packed = {part for parts in map(_parts_of, inner.items()) for part in parts}
        for member in unpacked:
            if member.path in packed:
                continue
            target = staging.tree / member.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (outer / member.path).rename(target)
            members[member.path] = member
        for path, folder in _folders_of(list(inner)).items():
            self._watch.check()
            for member in self._unpacked(outer, (path, inner[path]), folder, staging.tree):
                if member.path in members:
                    raise _clash(path, member.path)
                members[member.path] = member
            for part in _parts_of((path, inner[path])):
                (outer / part).unlink()
        shutil.rmtree(outer)
        return list(members.values())

    def checksum(self) -> str | None:
        """Returns the outer archive's hash where it was asked for."""
        return self._outer.checksum()

    def notes(self) -> Notes:
        """Returns sentences on what was done with some members."""
        return Notes(losses=(*self._outer.notes().losses, *self._losses))

    def close(self) -> None:
        """Deletes what had to be downloaded."""
        self._outer.close()

    def _archives(self, outer: Path, paths: Sequence[str]) -> dict[str, SplitArchive | None]:
        """Returns the archives among files by what each is called, with the parts of one in parts.

        Raises:
            ArchiveCorruptError: Of one in parts, a part is not there.
        """
        names = defaultdict(list)
        for path in paths:
            names[folder_of(path)].append(name_of(path))
        plain, splits = gathered(paths, dict(names))
        plain += [part for split in splits if split.are_whole for part in split.parts]
        found: dict[str, SplitArchive | None] = {}
        found.update((path, None) for path in plain if self._is_archive(outer / path))
        found.update((s.name, s) for s in splits if not s.are_whole and _is_in_parts(outer, s))
        return found

    def _is_archive(self, path: Path) -> bool:
        if path.suffix.lower() not in ARCHIVE_SUFFIXES:
            return False
        with contextlib.closing(open_source(path)) as source:
            return is_to_be_unpacked(str(path), source)

    def _unpacked(
        self, outer: Path, inner: tuple[str, SplitArchive | None], folder: str, tree: Path
    ) -> Sequence[Member]:
        """Unpacks one inner archive; only what was asked for of the outer one comes here."""
        path, split = inner
        clash = tree / folder
        if clash.exists() and not clash.is_dir():
            raise _clash(path, folder)
        self._watch.begin_once(Phase.UNPACKING)
        if split is not None:
            parts = tuple(str(outer / part) for part in split.parts)
            split = dataclasses.replace(split, name=str(outer / path), parts=parts)
        origin = self._outer.for_inner(str(outer / path), folder, split)
        try:
            origin.contents()
            unpacked = list(origin.unpack_into(tree))
        except ArchiveError as error:
            # Where it lies for the moment says nothing.
            told = error.message.replace(f"{outer / path}", "it")
            error.message = f"{path}, an archive in the archive, cannot be unpacked: {told}"
            raise
        self._losses += origin.notes().losses
        return unpacked


def _parts_of(inner: tuple[str, SplitArchive | None]) -> Iterable[str]:
    """Returns the files that an inner archive consists of."""
    path, split = inner
    return (path,) if split is None else split.parts


def _is_in_parts(outer: Path, split: SplitArchive) -> bool:
    """Whether the files that are called like parts are those of one archive."""
    with contextlib.ExitStack() as opened:
        parts = [open_source(outer / part) for part in split.parts]
        for part in parts:
            opened.callback(part.close)
        whole = JoinedSource(parts, split.name) if split.are_joined else parts[0]
        is_one = is_to_be_unpacked(split.name, whole)
    if split.missing and (is_one or len(split.parts) > 1):
        lacks = ", ".join(split.missing[:_NAMES_SHOWN])
        message = f"Of {split.name} in the archive, parts are missing: {lacks}."
        raise ArchiveCorruptError(message, hint="Pack it again with all of its parts.")
    return is_one


def _folders_of(inner: Sequence[str]) -> dict[str, str]:
    """Returns the folder that each inner archive gets, called as it is; refuses two of one name."""
    owners: dict[str, str] = {}
    for path in inner:
        place = PurePosixPath(path)
        folder = str(place.parent / stem_of(place.name))
        other = owners.setdefault(folder, path)
        if other != path:
            message = f"{other} and {path} in the archive would both get the folder {folder}."
            raise DatasetClashError(message, path=folder, sources=(other, path), hint=_HINT)
    return {path: folder for folder, path in owners.items()}


def _clash(archive: str, path: str) -> DatasetClashError:
    message = f"{path!r} is in the archive {archive} and beside it."
    return DatasetClashError(message, path=path, sources=(archive, path), hint=_HINT)


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
        self._hints: tuple[str, ...] = ()

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

    def notes(self) -> Notes:
        """Tells what was packed, and what was done with some members."""
        return dataclasses.replace(self._archive.notes(), hints=self._hints)

    def close(self) -> None:
        """Gives back what the archive needed."""
        self._archive.close()

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
            self._hints = (pack_words(packed, self._target, lasted_s=lasted_s),)
        selects = chosen(self._selection)
        self._listing = listing if selects is None else listing.selected(selects)
        return self._listing
