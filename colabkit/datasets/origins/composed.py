"""Archives in archives: the inner ones are unpacked too, each into a folder of its name."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.cache.staging import Staging
from colabkit.datasets.folders.mirroring import Before
from colabkit.datasets.origins.archive import ArchiveOrigin
from colabkit.datasets.origins.base import Contents
from colabkit.datasets.origins.shard_kinds import ARCHIVE_SUFFIXES, is_to_be_unpacked, stem_of
from colabkit.datasets.reading.progress import Phase, Watch
from colabkit.datasets.reading.retrying import Retry
from colabkit.datasets.reading.source import open_source
from colabkit.errors import DatasetClashError

_OUTER = "outer"


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
        self._notes: list[str] = []

    @property
    def notes(self) -> list[str]:
        """Sentences on what was done with some members."""
        return [*self._outer.notes, *self._notes]

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
        inner: list[str] = []
        for member in self._outer.unpack_into(outer):
            if self._is_archive(outer / member.path):
                inner.append(member.path)
                continue
            target = staging.tree / member.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (outer / member.path).rename(target)
            members[member.path] = member
        for path in inner:
            self._watch.check()
            for member in self._unpacked(outer, path, staging.tree):
                if member.path in members:
                    raise _clash(path, member.path)
                members[member.path] = member
            (outer / path).unlink()
        shutil.rmtree(outer)
        return list(members.values())

    def checksum(self) -> str | None:
        """Returns the outer archive's hash where it was asked for."""
        return self._outer.checksum()

    def close(self) -> None:
        """Deletes what had to be downloaded."""
        self._outer.close()

    def _is_archive(self, path: Path) -> bool:
        if path.suffix.lower() not in ARCHIVE_SUFFIXES:
            return False
        with contextlib.closing(open_source(path)) as source:
            return is_to_be_unpacked(str(path), source)

    def _unpacked(self, outer: Path, path: str, tree: Path) -> Sequence[Member]:
        """Unpacks one inner archive; only what was asked for of the outer one comes here."""
        above = PurePosixPath(path).parent
        folder = str(above / stem_of(PurePosixPath(path).name))
        clash = tree / folder
        if clash.exists() and not clash.is_dir():
            raise _clash(path, folder)
        self._watch.begin_once(Phase.UNPACKING)
        origin = self._outer.for_inner(str(outer / path), folder)
        origin.contents()
        unpacked = list(origin.unpack_into(tree))
        self._notes += origin.notes
        return unpacked


def _clash(archive: str, path: str) -> DatasetClashError:
    message = f"{path!r} is in the archive {archive} and beside it."
    hint = "Leave nested=True out, and unpack the inner archives by a call each."
    return DatasetClashError(message, path=path, sources=(archive, path), hint=hint)
