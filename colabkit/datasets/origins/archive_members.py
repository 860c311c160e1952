"""The files of several archives as those of one dataset."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, overload

from colabkit.datasets.archives.names import folded
from colabkit.datasets.cache.manifest import Member
from colabkit.errors import DatasetClashError


class MemberView(Sequence[Member]):
    """The files of several tables as members, each made when it is asked for.

    Args:
        tables: Each archive's files.
        folders: The folder that each archive gets, "" for the top.
    """

    def __init__(self, tables: Sequence[Sequence[Any]], folders: Sequence[str]) -> None:
        self._tables = tables
        self._prefixes = [f"{folder}/" if folder else "" for folder in folders]

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    def __iter__(self) -> Iterator[Member]:
        for table, prefix in zip(self._tables, self._prefixes, strict=True):
            for row in table:
                yield Member(prefix + row[0], row[1], row[2])

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Member]: ...
    def __getitem__(self, index: int | slice) -> Member | Sequence[Member]:
        if isinstance(index, slice):
            return list(self)[index]
        index = range(len(self))[index]
        for table, prefix in zip(self._tables, self._prefixes, strict=True):
            if index < len(table):
                path, nbytes, crc32, *_ = table[index]
                return Member(prefix + path, nbytes, crc32)
            index -= len(table)
        raise IndexError(index)


class Below(Container[str]):
    """Those of some paths that lie in a folder, as paths inside it."""

    def __init__(self, paths: Container[str], folder: str) -> None:
        self._paths = paths
        self._prefix = f"{folder}/"

    def __contains__(self, path: object) -> bool:
        return f"{self._prefix}{path}" in self._paths


def check_clashes(
    paths: Sequence[str],
    tables: Sequence[Sequence[Any]],
    folders: Sequence[Sequence[str]],
    *,
    keeps_case: bool,
) -> None:
    """Refuses a name that two archives give, or as file and as folder.

    Args:
        paths: The archives.
        tables: Each one's files.
        folders: Each one's folders.
        keeps_case: Whether names that differ in case only are two on the disk.
    """
    key: Callable[[str], str] = str if keeps_case else folded
    owners: dict[str, int] = {}
    folder_owners: dict[str, int] = {}
    for number, names in enumerate(folders):
        for name in names:
            folder_owners.setdefault(key(name), number)
    for number, table in enumerate(tables):
        for path, *_ in table:
            name = key(path)
            others = (owners.setdefault(name, number), folder_owners.get(name, number))
            other = next((other for other in others if other != number), None)
            if other is None:
                continue
            message = f"{path!r} is in {paths[other]} and in {paths[number]}."
            raise DatasetClashError(
                message,
                path=path,
                sources=(paths[other], paths[number]),
                hint="Pass subfolders=True: each archive gets a folder of its own.",
            )
