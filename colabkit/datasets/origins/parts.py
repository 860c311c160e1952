"""Files named by a pattern: archives to unpack side by side, or files to copy as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.cache.staging import Staging
from colabkit.datasets.folders.listing import THREADS
from colabkit.datasets.folders.mirroring import Before
from colabkit.datasets.origins.base import Contents, Origin, files_origin
from colabkit.datasets.origins.shard_kinds import (
    ARCHIVE_SUFFIXES,
    is_to_be_unpacked,
    suffix_of,
    unread_archive,
)
from colabkit.datasets.reading.progress import Watch
from colabkit.datasets.reading.retried_source import RetriedSource, open_retried
from colabkit.datasets.reading.retrying import Retry
from colabkit.errors import ArgumentError

_HEAD_BYTES = 256
_PAGE_SUFFIXES = frozenset({".html", ".htm", ".xhtml", ".mhtml"})
_NAMES_SHOWN = 3


class PartsOrigin:
    """Files named one by one or by a pattern: archives to unpack, or files to copy.

    Args:
        paths: The files' absolute paths.
        watch: Is told how far it is.
        retry: Called when the source does not answer.
        selects: Says which files to copy.
        as_archives: Makes the origin that unpacks them, or says why it cannot.
        alone: Whether it is one file that was named itself: it may be an archive that broke.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        watch: Watch,
        retry: Retry,
        selects: Callable[[str], bool] | None,
        as_archives: Callable[[], Origin],
        alone: bool = False,
    ) -> None:
        self._paths = paths
        self._watch = watch
        self._retry = retry
        self._files = files_origin(paths, watch=watch, retry=retry, selects=selects)
        self._as_archives = as_archives
        self._alone = alone
        self._chosen: Origin | None = None
        self._unread: dict[str, str] = {}

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Paths of the files that are still being written."""
        return self._files.unfinished

    @property
    def notes(self) -> list[str]:
        """Sentences on what was done with some members."""
        return [*getattr(self._chosen, "notes", []), *_unread_words(self._unread)]

    def stamp(self) -> str:
        """Returns the hash of all names, sizes and times of change."""
        return self._files.stamp()

    def contents(self) -> Contents:
        """Returns what is to be unpacked, or copied."""
        return self._choice().contents()

    def fill(self, staging: Staging, before: Before | None) -> Sequence[Member]:
        """Unpacks or copies."""
        return self._choice().fill(staging, before)

    def checksum(self) -> str | None:
        """Has no single hash."""
        return None

    def _choice(self) -> Origin:
        if self._chosen is None:
            with ThreadPoolExecutor(THREADS, "colabkit-heads") as pool:
                are_archives = list(pool.map(self._is_archive, self._paths))
            if len(set(are_archives)) > 1:
                raise _mixed(self._paths, are_archives)
            self._chosen = self._as_archives() if all(are_archives) else self._files
        return self._chosen

    def _is_archive(self, path: str) -> bool:
        self._watch.check()
        source = RetriedSource(open_retried(path, self._retry), self._retry)
        try:
            if is_to_be_unpacked(path, source):
                return True
            if what := unread_archive(source):
                self._unread[path] = what
                return False
            if not self._alone:
                return False
            return _looks_broken(path, source.read(0, _HEAD_BYTES))
        finally:
            source.close()


def _looks_broken(path: str, head: bytes) -> bool:
    """Whether one file that is no archive was to be one, as a sign-in page in its place."""
    suffix = suffix_of(path)
    if not suffix or not head or suffix in ARCHIVE_SUFFIXES:
        return True
    page = head.lstrip().lower().startswith((b"<!doctype html", b"<html"))
    return page and suffix not in _PAGE_SUFFIXES


def _unread_words(kinds: Mapping[str, str]) -> list[str]:
    """Returns what to say of archives that are copied because they are not read here."""
    if not kinds:
        return []
    name, what = min((os.path.basename(path), what) for path, what in kinds.items())  # noqa: PTH119
    others = f", as {len(kinds) - 1:,} more are" if len(kinds) > 1 else ""
    is_program = what.startswith("a program")
    command = "7z x ARCHIVE -oFOLDER" if is_program else "bsdtar -xf ARCHIVE -C FOLDER"
    package = "p7zip-full" if is_program else "libarchive-tools"
    sentence = (
        f"{name} is {what}{others}, which is not unpacked here but copied as it is: for its files"
        f" run !{command} (it comes with apt-get install -y {package}), and pass the folder."
    )
    return [sentence]


def _mixed(paths: Sequence[str], are_archives: Sequence[bool]) -> ArgumentError:
    others = [path for path, is_one in zip(paths, are_archives, strict=True) if not is_one]
    names = ", ".join(os.path.basename(path) for path in others[:_NAMES_SHOWN])  # noqa: PTH119
    more = ", ..." if len(others) > _NAMES_SHOWN else ""
    message = (
        f"{len(others):,} of the {len(paths):,} files are no archives ({names}{more}),"
        " and the others are."
    )
    hint = "Pass a pattern that names only archives, or none. Are these uploaded whole?"
    return ArgumentError(message, argument="source", hint=hint)
