"""Files named by a pattern: archives to unpack side by side, or files to copy as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from colabkit.datasets.archives import ArchiveKind, kind_of, unpacked_pieces
from colabkit.datasets.cache import Member, Staging
from colabkit.datasets.folders import THREADS, Before
from colabkit.datasets.origins.origin import Contents, FolderOrigin, Origin
from colabkit.datasets.reading import RetriedSource, Source, open_retried
from colabkit.datasets.transfer import Retry, Watch
from colabkit.errors import ArchiveCorruptError, ArgumentError

_HEAD_BYTES = 64 << 10
# A bzip2 gives nothing before its first block is whole.
_BZ2_HEAD_BYTES = 1 << 20
_BLOCK_BYTES = 512
_NAMES_SHOWN = 3


class PartsOrigin:
    """Files named by a pattern; their content, not their name, says whether they are archives.

    Args:
        paths: The files' absolute paths.
        watch: Is told how far it is.
        retry: Called when the source does not answer.
        selects: Says which files to copy.
        as_archives: Makes the origin that unpacks them.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        watch: Watch,
        retry: Retry,
        selects: Callable[[str], bool] | None,
        as_archives: Callable[[], Origin],
    ) -> None:
        self._paths = paths
        self._watch = watch
        self._retry = retry
        root = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))  # noqa: PTH120
        self._files = FolderOrigin(
            root,
            watch=watch,
            retry=retry,
            selects=selects,
            names=[str(Path(path).relative_to(root)) for path in paths],
        )
        self._as_archives = as_archives
        self._chosen: Origin | None = None

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Paths of the files that are still being written."""
        return self._files.unfinished

    def stamp(self) -> str:
        """Returns the hash of all names, sizes and times of change."""
        return self._files.stamp()

    def contents(self) -> Contents:
        """Returns what is to be unpacked, or copied."""
        return self._choice().contents()

    def fill(self, staging: Staging, before: Before | None) -> Sequence[Member]:
        """Unpacks or copies."""
        return self._choice().fill(staging, before)

    def sha256(self) -> str | None:
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
            return holds_archive(source)
        finally:
            source.close()


def holds_archive(source: Source) -> bool:
    """Whether a file is an archive; a packed file that is no tar, as ``.csv.gz``, is none."""
    try:
        kind = kind_of(source)
        if not kind.is_tar:
            return True
        head_bytes = _BZ2_HEAD_BYTES if kind is ArchiveKind.TAR_BZ2 else _HEAD_BYTES
        head = source.read(0, min(head_bytes, source.nbytes))
        first = b"".join(_first_pieces(unpacked_pieces(kind, iter([head]))))
        return kind_of(_Bytes(first)).is_tar
    except ArchiveCorruptError:
        return False


def _first_pieces(pieces: Iterator[bytes]) -> Iterator[bytes]:
    nbytes = 0
    for piece in pieces:
        yield bytes(piece)
        nbytes += len(piece)
        # Not to the end: a head that was cut off unpacks up to there, and then fails.
        if nbytes >= _BLOCK_BYTES:
            return


class _Bytes:
    name = "the first bytes"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.nbytes = len(data)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self._data[offset : offset + nbytes]

    def close(self) -> None:
        """Holds nothing."""


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
