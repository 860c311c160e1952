"""Members in columns, a million in tens of megabytes, and what is remarked on of them."""

from __future__ import annotations

import enum
import threading
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import accumulate, repeat
from typing import NamedTuple, overload

Column = array  # of numbers; numpy takes longer to load than a thousand small files to unpack
_CHUNK = 1 << 14
_NAMES_SHOWN = 3


def taken(column: Column[int], rows: Iterable[int]) -> Column[int]:
    """Returns some rows of a column."""
    return array(column.typecode, map(column.__getitem__, rows))


class ArchiveFile(NamedTuple):
    """A regular file in an archive, as its directory declares it."""

    path: str
    nbytes: int
    crc: int | None
    mode: int


class UnpackedFile(NamedTuple):
    """A file that was unpacked and checked."""

    path: str
    nbytes: int
    crc32: int


class Link(NamedTuple):
    """A symbolic or hard link in an archive; ``target`` is a path within it."""

    path: str
    target: str


class PathColumn(Sequence[str]):
    """Paths in one buffer, each with a line end behind it."""

    __slots__ = ("_ends", "_text")

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("Q")

    def append(self, path: str) -> None:
        """Adds a path."""
        self._text += path.encode()
        self._ends.append(len(self._text))
        self._text += b"\n"

    def extend(self, lines: bytes, sizes: Iterable[int]) -> None:
        """Adds paths that are in one buffer already, each with a line end behind it."""
        sizes = iter(sizes)
        first = next(sizes, None)
        if first is not None:
            begin = len(self._text) + first
            self._ends.extend(accumulate(sizes, lambda end, size: end + size + 1, initial=begin))
            self._text += lines

    def copy(self) -> PathColumn:
        """Returns the same paths, to add others to."""
        other = PathColumn()
        other._text, other._ends = self._text[:], self._ends[:]
        return other

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        begin = self._ends[index - 1] + 1 if index else 0
        return self._text[begin : self._ends[index]].decode()

    def at(self, indices: Iterable[int]) -> list[str]:
        """Returns the paths at these places."""
        text, ends = self._text, self._ends
        return [text[ends[i - 1] + 1 if i else 0 : ends[i]].decode() for i in indices]

    def __iter__(self) -> Iterator[str]:
        for chunk in self.chunks():
            yield from chunk

    def chunks(self) -> Iterator[list[str]]:
        """Yields the paths, some thousands at a time."""
        begin = 0
        for first in range(0, len(self), _CHUNK):
            last = min(first + _CHUNK, len(self))
            end = self._ends[last - 1]
            lines = self._text[begin:end].decode().split("\n")
            if len(lines) == last - first:
                yield lines
            else:
                # A name with a line end in it.
                yield [self[index] for index in range(first, last)]
            begin = end + 1


class FileTable(Sequence[ArchiveFile]):
    """What an archive's directory says of its regular files."""

    __slots__ = ("crcs", "modes", "nbytes", "paths")

    def __init__(
        self,
        paths: PathColumn,
        nbytes: Column[int],
        crcs: Column[int] | None,
        modes: Column[int],
    ) -> None:
        self.paths = paths
        self.nbytes = nbytes
        self.crcs = crcs
        self.modes = modes

    @property
    def has_all_crcs(self) -> bool:
        """Whether each file with content has one; AES, for one, puts nothing in its place."""
        if self.crcs is None:
            return False
        return all(self.crcs) or not any(
            nbytes and not crc for crc, nbytes in zip(self.crcs, self.nbytes, strict=True)
        )

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> ArchiveFile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ArchiveFile]: ...
    def __getitem__(self, index: int | slice) -> ArchiveFile | Sequence[ArchiveFile]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        crc = None if self.crcs is None else self.crcs[index]
        return ArchiveFile(self.paths[index], self.nbytes[index], crc, self.modes[index])

    def __iter__(self) -> Iterator[ArchiveFile]:
        first = 0
        for paths in self.paths.chunks():
            rows = slice(first, first + len(paths))
            crcs = repeat(None, len(paths)) if self.crcs is None else self.crcs[rows]
            facts = zip(paths, self.nbytes[rows], crcs, self.modes[rows], strict=True)
            yield from map(ArchiveFile._make, facts)
            first = rows.stop


class UnpackedTable(Sequence[UnpackedFile]):
    """Every file that was unpacked, with its size and CRC-32."""

    __slots__ = ("_crcs", "_nbytes", "_paths")

    def __init__(self) -> None:
        self._paths = PathColumn()
        self._nbytes = array("Q")
        self._crcs = array("L")

    @classmethod
    def of(cls, files: FileTable) -> UnpackedTable:
        """Returns a manifest of files whose CRCs are known."""
        if files.crcs is None:
            raise TypeError(files)
        manifest = cls()
        manifest._paths = files.paths.copy()
        manifest._nbytes = array("Q", files.nbytes)
        manifest._crcs = array("L", files.crcs)
        return manifest

    def add(self, path: str, nbytes: int, crc32: int) -> None:
        """Adds a file."""
        self._paths.append(path)
        self._nbytes.append(nbytes)
        self._crcs.append(crc32)

    def of_the_last(self, *, without: Container[str]) -> UnpackedTable:
        """Returns the last of each path's files, without some paths."""
        last = {file.path: file for file in self}
        table = UnpackedTable()
        for path, file in last.items():
            if path not in without:
                table.add(*file)
        return table

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> UnpackedFile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[UnpackedFile]: ...
    def __getitem__(self, index: int | slice) -> UnpackedFile | Sequence[UnpackedFile]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return UnpackedFile(self._paths[index], self._nbytes[index], self._crcs[index])

    def __iter__(self) -> Iterator[UnpackedFile]:
        return map(UnpackedFile._make, zip(self._paths, self._nbytes, self._crcs, strict=True))


class Remark(enum.Enum):
    """Something about members that every program accepts in its own way."""

    STRIPPED = "Taken without the / or ../ in front, which would lead outside: {}"
    CLIMBS = "Taken without the .. in its name, as unzip and 7z do: {}"
    TWICE = "More than once in the archive, and taken as it comes last: {}"
    UNKNOWN_KIND = "Of a kind that is not known, and taken for a file: {}"
    LINK_LEFT_OUT = "Left out, as a link that leads outside or to nothing: {}"
    TOO_LONG = "Left out, as a name too long for a disk: {}"
    NO_END = (
        "The archive has no end mark, which some programs do not write: should it have been cut"
        " short just between two members, those behind are missing"
    )
    FIRST_PART = (
        "Its first part is taken to be the first one: should there have been {}, the files in it"
        " are missing"
    )
    MORE_BEHIND = "Something follows the end of the archive and is left out, as other programs do"
    ENCODING = "Names that do not say their encoding are read as {} (encoding= overrules it)"


class Remarks:
    """Collects remarks; any thread may add one."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._found: dict[Remark, dict[str, None]] = {}

    def add(self, remark: Remark, name: str = "") -> None:
        """Notes that a remark holds for a member, or for the whole archive."""
        with self._guard:
            self._found.setdefault(remark, {})[name] = None

    def __contains__(self, remark: Remark) -> bool:
        return remark in self._found

    def sentences(self) -> list[str]:
        """Returns what there is to say."""
        with self._guard:
            found = list(self._found.items())
        return [f"{remark.value.format(_quoted(names))}." for remark, names in found]


def said_once(sentences: Iterable[str]) -> tuple[str, ...]:
    """Returns sentences in order, each once."""
    return tuple(dict.fromkeys(sentences))


def _quoted(names: Iterable[str]) -> str:
    names = list(names)
    if len(names) == 1:
        return names[0]
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return f"{len(names):,} members ({shown})"
