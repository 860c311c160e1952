"""What a folder holds, listed by many threads: a slow folder is slow per call."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path, PurePosixPath

import xxhash

from colabkit.datasets.archives.safety import is_junk_name
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.cache.slots import SIDE_NAME
from colabkit.datasets.reading.workers import Pool
from colabkit.errors import ArgumentError, StorageError, UnsafeLinkError
from colabkit.storage import is_slow

THREADS = 32
_BATCH = 8
_SHORTCUTS = ".shortcut-targets-by-id"


class FolderReader:
    """The calls by which a folder is read, in one place so that a test can slow them down."""

    def scan(self, path: Path) -> list[os.DirEntry[str]]:
        """Returns a folder's entries."""
        with os.scandir(path) as entries:
            return list(entries)

    def status(self, path: Path) -> os.stat_result:
        """Returns what a file is, links followed."""
        return os.stat(path)  # noqa: PTH116 - the call that is meant

    def open(self, path: Path) -> int:
        """Opens a file for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, descriptor: int, nbytes: int, offset: int) -> bytes:
        """Returns up to ``nbytes`` from ``offset``."""
        return os.pread(descriptor, nbytes, offset)

    def is_still(self, descriptor: int, file: Member) -> bool:
        """Whether an open file has the size and the times of change that it was listed with."""
        status = os.fstat(descriptor)
        if file.ctime_ns is not None and (
            status.st_ino != file.inode or status.st_ctime_ns > file.ctime_ns
        ):
            return False
        return (status.st_size, status.st_mtime_ns) == (file.nbytes, file.mtime_ns)


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds.

    Attributes:
        files: Every file with its size and time of change, sorted by path.
        folders: Every folder inside, sorted by path.
    """

    files: Sequence[Member]
    folders: Sequence[str]

    @property
    def nbytes(self) -> int:
        """All files' sizes added up."""
        return sum(file.nbytes for file in self.files)

    @property
    def empty_folders(self) -> list[str]:
        """The folders that hold nothing, which no file's path tells of."""
        names = [*self.folders, *(file.path for file in self.files)]
        filled = {name.rpartition("/")[0] for name in names}
        return [folder for folder in self.folders if folder not in filled]

    @property
    def digest(self) -> str:
        """One word that changes when a file comes, goes or changes."""
        text = json.dumps([list(self.files), list(self.folders)], separators=(",", ":"))
        return xxhash.xxh3_128_hexdigest(text.encode())

    def selected(self, selects: Callable[[str], bool]) -> Listing:
        """Returns what is left of it when only some paths are taken."""
        files = [file for file in self.files if selects(file.path)]
        above = {str(parent) for file in files for parent in PurePosixPath(file.path).parents}
        return Listing(files, [name for name in self.folders if name in above])


@dataclasses.dataclass(slots=True)
class _Found:
    files: list[Member]
    folders: list[str]
    names: list[str]


def list_folder(
    root: Path,
    *,
    reader: FolderReader | None = None,
    threads: int = THREADS,
    check: Callable[[], None] = lambda: None,
    retry: Callable[[OSError], None] | None = None,
) -> Listing:
    """Returns what a folder holds.

    Args:
        root: The folder.
        reader: The calls to read it by.
        threads: How many calls wait at the same time.
        check: Called now and then; raises to stop.
        retry: Called on a failure; returns to try again, raises to give up.

    Raises:
        UnsafeLinkError: A link leads outside or nowhere, or something is not a file.
        OSError: It cannot be read.
    """
    lister = _Lister(root, reader or FolderReader(), retry or _give_up)
    files: list[Member] = []
    folders: list[str] = []
    with Pool(threads, "colabkit-list") as pool:
        waiting: set[Future[_Found]] = {pool.submit(lister.scan, "")}
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                check()
                for future in finished:
                    found = future.result()
                    files += found.files
                    folders += found.folders
                    waiting |= {pool.submit(lister.scan, folder) for folder in found.folders}
                    for start in range(0, len(found.names), _BATCH):
                        batch = found.names[start : start + _BATCH]
                        waiting.add(pool.submit(lister.statuses, batch))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return Listing(sorted(files, key=lambda file: file.path), sorted(folders))


def list_files(
    root: Path,
    names: Sequence[str],
    *,
    reader: FolderReader | None = None,
    threads: int = THREADS,
    check: Callable[[], None] = lambda: None,
    retry: Callable[[OSError], None] | None = None,
) -> list[Member]:
    """Returns the size and time of change of certain files in a folder.

    Args:
        root: The folder.
        names: The files' paths inside it.
        reader: The calls to read it by.
        threads: How many calls wait at the same time.
        check: Called now and then; raises to stop.
        retry: Called on a failure; returns to try again, raises to give up.

    Raises:
        UnsafeLinkError: Something is not a file.
        OSError: It cannot be read.
    """
    lister = _Lister(root, reader or FolderReader(), retry or _give_up)

    def statuses(batch: Sequence[str]) -> list[Member]:
        check()
        return lister.statuses(batch).files

    batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
    with Pool(threads, "colabkit-list") as pool:
        return [file for files in pool.map(statuses, batches) for file in files]


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is never copied or packed."""
    return name == SIDE_NAME or is_junk_name(name)


def unreadable(path: str | Path, error: OSError) -> StorageError:
    """Returns what to say of a file in a folder that cannot be read."""
    message = f"{path} cannot be read: {error.strerror or error}."
    hint = "Take it out of the folder, or see that it may be read."
    if error.errno == errno.EOPNOTSUPP:
        # github.com/googlecolab/colabtools/issues/2090
        hint = (
            "Nothing can read Google's own documents: export it, a sheet as CSV, and move it out"
            " of the folder."
        )
    return StorageError(message, path=path, operation="read", hint=hint)


def _give_up(error: OSError) -> None:
    raise error


class _Lister:
    def __init__(self, root: Path, reader: FolderReader, retry: Callable[[OSError], None]) -> None:
        self._root = root
        self._real_root = root.resolve()
        # On Drive and on networks an inode may be made anew in each session.
        self._device = None if is_slow(root) else os.stat(root).st_dev  # noqa: PTH116
        self._links: set[str] = set()
        self._reader = reader
        self._retry = retry
        self._through: dict[str, Path] = {}

    def scan(self, inside: str) -> _Found:
        while True:
            try:
                entries = self._reader.scan(self._root / inside)
                break
            except OSError as error:
                self._retry(error)
        found = _Found([], [], [])
        for entry in entries:
            if is_left_out(entry.name):
                continue
            path = f"{inside}/{entry.name}" if inside else entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.is_symlink():
                self._links.add(path)
                is_folder = self._link_leads_to_folder(path)
            if is_folder:
                found.folders.append(path)
            else:
                found.names.append(path)
        return found

    def statuses(self, paths: Sequence[str]) -> _Found:
        return _Found([self._member(path) for path in paths], [], [])

    def _member(self, path: str) -> Member:
        while True:
            try:
                status = self._reader.status(self._root / path)
                break
            except OSError as error:
                self._retry(error)
        if stat.S_ISDIR(status.st_mode):
            message = f"The pattern names the folder {self._root / path} beside files."
            hint = "Pass the folder itself, or a pattern with a suffix as in *.tif."
            raise ArgumentError(message, argument="source", hint=hint)
        if not stat.S_ISREG(status.st_mode):
            message = f"{self._root / path} is no file: a device, a pipe or a socket."
            raise UnsafeLinkError(message, path=path, hint="Take it out of the folder.")
        member = Member(path, status.st_size, None, status.st_mtime_ns)
        if status.st_dev != self._device:
            return member
        ctime_ns = status.st_ctime_ns
        if path in self._links:
            # A link that leads elsewhere now is new itself, and what it leads to need not be.
            ctime_ns = max(ctime_ns, os.lstat(self._root / path).st_ctime_ns)
        return member._replace(inode=status.st_ino, ctime_ns=ctime_ns)

    def _check_shortcut(self, path: str, target: Path) -> None:
        """Refuses a shortcut that leads back to a folder by which it was reached.

        Drive shows what a shortcut leads to at a place of its own, whoever's it is.
        """
        above = map(str, PurePosixPath(path).parents)
        if target in map(self._through.get, above) or (
            self._root / path
        ).parent.resolve().is_relative_to(target):
            message = f"The shortcut {self._root / path} leads back to a folder that it lies in."
            raise UnsafeLinkError(message, path=path, hint="Remove it on Drive.")
        self._through[path] = target

    def _link_leads_to_folder(self, path: str) -> bool:
        link = self._root / path
        try:
            target = link.resolve()
        except (OSError, RuntimeError) as error:
            message = f"The link {link} leads in a circle."
            raise UnsafeLinkError(message, path=path, hint="Remove it.") from error
        if _SHORTCUTS in target.parts and target.exists():
            self._check_shortcut(path, target)
            return target.is_dir()
        if not target.is_relative_to(self._real_root) or not target.exists():
            message = f"The link {link} leads outside the folder or nowhere, to {target}."
            raise UnsafeLinkError(
                message, path=path, hint="Replace it by a copy of what it names, or remove it."
            )
        if link.parent.resolve().is_relative_to(target):
            message = f"The link {link} leads back to a folder that it lies in, {target}."
            raise UnsafeLinkError(message, path=path, hint="Remove it.")
        return target.is_dir()
