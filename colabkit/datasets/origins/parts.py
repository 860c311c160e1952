"""Files named by a pattern: archives to unpack side by side, or files to copy as they are."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from colabkit.datasets.archives.kinds import BY_BSDTAR, ArchiveKind, kind_of, of_other_programs
from colabkit.datasets.archives.zip_format import LOCAL_BYTES
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.cache.publishing import Staging
from colabkit.datasets.folders.listing import THREADS
from colabkit.datasets.origins.base import Contents, Notes, Origin, files_origin
from colabkit.datasets.reading.progress import Watch
from colabkit.datasets.reading.retrying import RetriedSource, Retry, open_retried
from colabkit.datasets.reading.source import Source
from colabkit.datasets.reading.split_names import name_of, words_on_slices
from colabkit.datasets.reading.workers import Pool
from colabkit.errors import ArchiveCorruptError, ArgumentError

if TYPE_CHECKING:
    from colabkit.datasets.folders.mirroring import Before

_KIND_HEAD_BYTES = 64 << 10
# A bzip2 gives nothing before its first block is whole.
_BZ2_HEAD_BYTES = 1 << 20
_BLOCK_BYTES = 512
ARCHIVE_SUFFIXES = frozenset(
    f".{name}"
    for names in (
        ("zip", "tar", "7z", "rar", "tgz", "tbz", "tbz2", "txz", "tzst"),
        ("gz", "bz2", "xz", "zst", "lz4", "lzma", "tlz"),
    )
    for name in names
)
# Zips, tars or gzips inside, and read whole by the programs that they belong to.
WHOLE_SUFFIXES = frozenset(
    f".{name}"
    for names in (
        ("npz", "pt", "pth", "ptl", "pte", "ckpt", "keras", "mar", "nemo", "task", "tflite"),
        ("xlsx", "xlsm", "xlsb", "docx", "pptx", "ods", "odt", "odp", "epub", "kmz", "usdz", "3mf"),
        ("jar", "war", "aar", "apk", "ipa", "whl", "egg", "nupkg", "vsix", "sb3", "mlmodel"),
        ("pkl", "pickle", "joblib", "mat", "rds", "rda", "svgz", "skops"),
    )
    for name in names
)
_VOLUME = re.compile(r"\.part\d{1,5}$", re.IGNORECASE)
_PROGRAMS = (b"MZ", b"\x7fELF", b"#!")
_IN_PROGRAMS = ((b"7z\xbc\xaf\x27\x1c\0", "a 7z"), (b"Rar!\x1a\x07", "a rar"))
_PROGRAM_BYTES = 1 << 20
_WHOLE_FIRST_MEMBERS = (b"[Content_Types].xml", b"META-INF/", b"mimetype")
_WHOLE_FIRST_ENDS = (b"/data.pkl", b".npy")
_HEAD_BYTES = 256
_PAGE_SUFFIXES = frozenset({".html", ".htm", ".xhtml", ".mhtml"})
_NAMES_SHOWN = 3


def stem_of(name: str) -> str:
    """Returns an archive's name without its suffixes.

    Example:
        >>> stem_of("n01440764.tar.gz"), stem_of("v1.0.zip"), stem_of("cats.part1.rar")
        ('n01440764', 'v1.0', 'cats')
    """
    stem = name
    while suffix_of(stem) in ARCHIVE_SUFFIXES and PurePosixPath(stem).stem:
        stem = PurePosixPath(stem).stem
    if suffix_of(name) == ".rar":
        stem = _VOLUME.sub("", stem)
    return stem if stem != name else f"{name}.d"


def suffix_of(path: str) -> str:
    """Returns a path's last suffix in lower case, with its dot.

    Example:
        >>> suffix_of("MyDrive/Train.NPZ")
        '.npz'
    """
    return PurePosixPath(path).suffix.lower()


def is_to_be_unpacked(path: str, source: Source) -> bool:
    """Whether a file is an archive of files, and no file of another kind that is packed inside."""
    return suffix_of(path) not in WHOLE_SUFFIXES and holds_archive(source)


def holds_archive(source: Source) -> bool:
    """Whether a file is an archive; a packed file that is no tar, as ``.csv.gz``, is none."""
    try:
        kind = kind_of(source)
        if kind is ArchiveKind.ZIP:
            return not _is_read_whole(source)
        if not kind.is_tar:
            return True
        from colabkit.datasets.archives.tar_stream import unpacked_pieces  # a zip needs no tar

        head_bytes = _BZ2_HEAD_BYTES if kind is ArchiveKind.TAR_BZ2 else _KIND_HEAD_BYTES
        head = source.read(0, min(head_bytes, source.nbytes))
        first = b"".join(_first_pieces(unpacked_pieces(kind, iter([head]))))
        return kind_of(_Bytes(first)).is_tar
    except ArchiveCorruptError:
        return False


def unread_archive(source: Source) -> str:
    """Returns what an archive is that is not read here, "" for anything else."""
    if what := of_other_programs(source.read):
        return what
    if source.read(0, max(map(len, _PROGRAMS))).startswith(_PROGRAMS):
        program = source.read(0, min(_PROGRAM_BYTES, source.nbytes))
        for magic, what in _IN_PROGRAMS:
            if magic in program:
                return f"a program that unpacks {what}"
    return ""


def _is_read_whole(source: Source) -> bool:
    """Whether a zip's first member is that of a model, an office document or a program."""
    if suffix_of(source.name) in ARCHIVE_SUFFIXES:
        return False
    head = source.read(0, LOCAL_BYTES + 256)
    name = head[LOCAL_BYTES : LOCAL_BYTES + int.from_bytes(head[26:28], "little")]
    return name.startswith(_WHOLE_FIRST_MEMBERS) or name.endswith(_WHOLE_FIRST_ENDS)


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
        self.starts: tuple[int, ...] = (0,)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self._data[offset : offset + nbytes]

    def close(self) -> None:
        """Holds nothing."""


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

    def stamp(self) -> str:
        """Returns the hash of all names, sizes and times of change."""
        return self._files.stamp()

    def contents(self) -> Contents:
        """Returns what is to be unpacked, or copied."""
        contents = self._choice().contents()
        return dataclasses.replace(contents, unfinished=self._files.contents().unfinished)

    def fill(self, staging: Staging, before: Before | None) -> Sequence[Member]:
        """Unpacks or copies."""
        return self._choice().fill(staging, before)

    def checksum(self) -> str | None:
        """Has no single hash."""
        return None

    def notes(self) -> Notes:
        """Tells of files still being written, of members, and of archives that are not read."""
        losses = self._files.notes().losses
        if self._chosen is not None and self._chosen is not self._files:
            losses += self._chosen.notes().losses
        return Notes(losses=losses + _unread_words(self._unread))

    def close(self) -> None:
        """Gives back what the archives needed."""
        if self._chosen is not None:
            self._chosen.close()

    def _choice(self) -> Origin:
        if self._chosen is None:
            with Pool(THREADS, "colabkit-heads") as pool:
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


def _unread_words(kinds: Mapping[str, str]) -> tuple[str, ...]:
    """Returns what to say of archives that are copied because they are not read here."""
    if not kinds:
        return ()
    name, what = min((os.path.basename(path), what) for path, what in kinds.items())  # noqa: PTH119
    others = f", as {len(kinds) - 1:,} more are" if len(kinds) > 1 else ""
    is_program = what.startswith("a program")
    by_7z = "run !7z x ARCHIVE -oFOLDER (it comes with apt-get install -y p7zip-full), and pass the"
    way = f"{by_7z} folder" if is_program else BY_BSDTAR
    sentence = (
        f"{name} is {what}{others}, which is not unpacked here but copied as it is: for its files"
        f" {way}."
    )
    return (sentence,)


def _mixed(paths: Sequence[str], are_archives: Sequence[bool]) -> ArgumentError:
    others = [path for path, is_one in zip(paths, are_archives, strict=True) if not is_one]
    names = ", ".join(os.path.basename(path) for path in others[:_NAMES_SHOWN])  # noqa: PTH119
    more = ", ..." if len(others) > _NAMES_SHOWN else ""
    message = (
        f"{len(others):,} of the {len(paths):,} files are no archives ({names}{more}),"
        " and the others are."
    )
    hint = "Pass a pattern that names only archives, or none. Are these uploaded whole?"
    if "://" not in others[0]:
        hint = words_on_slices(others[0], map(name_of, paths)) or hint
    return ArgumentError(message, argument="source", hint=hint)
