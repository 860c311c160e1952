"""Whether the members of an archive can lie side by side in one folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from colabkit.datasets.archives.members import PathColumn, are_in
from colabkit.datasets.archives.safety import parents
from colabkit.errors import ArchiveUnsafeError

_Key = Callable[[str], str]
_Hashes = np.ndarray[Any, np.dtype[np.int64]]
_HINT = "Pack the data again without it."
_CASE_HINT = "Pass dest= on a disk that keeps both, or rename one of them."


def folders_of(paths: Iterable[str]) -> dict[str, None]:
    """Returns the folders that these paths need, those above before those below."""
    found: set[str] = set()
    for chunk in _chunks(paths):
        found.update({path.rpartition("/")[0] for path in chunk})
    found.update([above for folder in found for above in parents(folder)])
    found.discard("")
    return dict.fromkeys(sorted(found))


def folded(path: str) -> str:
    """Returns what a disk that ignores case takes a path for."""
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def check_clashes(paths: Sequence[str], folders: Iterable[str], *, keeps_case: bool = True) -> None:
    """Raises where two members want one name.

    Args:
        paths: Files and links.
        folders: Every folder, also those only implied.
        keeps_case: Whether names that differ in case only are two on the disk.

    Raises:
        ArchiveUnsafeError: A name comes twice, or is both a file and a folder.
    """
    folders = list(folders)
    key: _Key = str if keeps_case else folded
    # Sorted hashes take 8 bytes a member where a set of names takes a hundred.
    hashes = _hashes(paths, key)
    _check_twice(paths, hashes, key)
    _check_both(paths, hashes, folders, key)
    if not keeps_case:
        _check_folders(folders)


def replaced(paths: Sequence[str]) -> list[int]:
    """Returns the places of paths that come again later."""
    hashes = _hashes(paths, str)
    last: dict[str, int] = {}
    found: list[int] = []
    for index in np.flatnonzero(are_in(hashes, _doubled(hashes))).tolist():
        before = last.get(paths[index])
        if before is not None:
            found.append(before)
        last[paths[index]] = index
    return found


def _doubled(hashes: _Hashes) -> list[int]:
    ordered = np.sort(hashes)
    return sorted(set(ordered[1:][ordered[1:] == ordered[:-1]].tolist()))


def _chunks(paths: Iterable[str]) -> Iterable[Iterable[str]]:
    return paths.chunks() if isinstance(paths, PathColumn) else [paths]


def _hashes(paths: Sequence[str], key: _Key) -> _Hashes:
    out = np.empty(len(paths), np.int64)
    done = 0
    for chunk in _chunks(paths):
        names = list(chunk)
        if key is folded and "".join(names).isascii():
            keys: Iterable[str] = map(str.lower, names)
        else:
            keys = map(key, names)
        out[done : done + len(names)] = np.fromiter(map(hash, keys), np.int64, len(names))
        done += len(names)
    return out


def _check_twice(paths: Sequence[str], hashes: _Hashes, key: _Key) -> None:
    if not (doubled := _doubled(hashes)):
        return
    seen: dict[str, int] = {}
    for index in np.flatnonzero(are_in(hashes, doubled)).tolist():
        first = seen.setdefault(key(paths[index]), index)
        if first != index:
            raise _clash(paths[index], paths[first])


def _check_both(paths: Sequence[str], hashes: _Hashes, folders: Sequence[str], key: _Key) -> None:
    by_key = {key(folder): folder for folder in folders}
    wanted = np.fromiter(map(hash, by_key), np.int64, len(by_key))
    for index in np.flatnonzero(are_in(hashes, wanted)):
        path = paths[int(index)]
        if (folder := by_key.get(key(path))) is not None:
            raise _clash(path, folder + "/")


def _check_folders(folders: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for folder in folders:
        other = seen.setdefault(folded(folder), folder)
        if other != folder:
            raise _clash(folder + "/", other + "/")


def _clash(path: str, other: str) -> ArchiveUnsafeError:
    if path == other:
        message = f"Member {path!r} is in the archive twice."
        return ArchiveUnsafeError(message, member=path, hint=_HINT)
    if path == other.rstrip("/"):
        message = f"Member {path!r} is both a file and a folder."
        return ArchiveUnsafeError(message, member=path, hint=_HINT)
    message = f"Members {path!r} and {other!r} are one name where case does not count."
    return ArchiveUnsafeError(message, member=path, hint=_CASE_HINT)


class Names:
    """The same checks for members that come one by one."""

    def __init__(self, *, keeps_case: bool) -> None:
        self._key: _Key = str if keeps_case else folded
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {"": ""}
        self._last = ""

    def has_file(self, path: str) -> bool:
        """Whether a file or link of just this name came before."""
        return self._files.get(self._key(path)) == path

    def add_file(self, path: str) -> list[str]:
        """Takes a file's or link's name; returns the folders that it is the first to need."""
        folder = path.rpartition("/")[0]
        # Most lie in the folder of the one before.
        fresh = [] if folder == self._last else self.add_folder(folder)
        self._last = folder
        key = self._key(path)
        if self._files.setdefault(key, path) != path:
            raise _clash(path, self._files[key])
        if key in self._folders:
            raise _clash(path, self._folders[key] + "/")
        return fresh

    def add_folder(self, path: str) -> list[str]:
        """Takes a folder's name; returns those not there yet, the upper ones first."""
        known = self._folders.get(self._key(path))
        if known == path:
            return []
        fresh = []
        for folder in (path, *parents(path)):
            key = self._key(folder)
            if key in self._files:
                raise _clash(folder, folder + "/")
            known = self._folders.get(key)
            if known is not None and known != folder:
                raise _clash(folder + "/", known + "/")
            if known is not None:
                break
            self._folders[key] = folder
            fresh.append(folder)
        return fresh[::-1]

    @property
    def folders(self) -> list[str]:
        """Every folder so far."""
        return [folder for folder in self._folders.values() if folder]
