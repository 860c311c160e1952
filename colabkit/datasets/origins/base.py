"""What a dataset is made from, behind one contract; the plain one is a folder."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol, overload

from colabkit.datasets.archives.kinds import Plan
from colabkit.datasets.archives.names import folded
from colabkit.datasets.cache.manifest import DatasetManifest, Member
from colabkit.datasets.cache.publishing import Staging
from colabkit.datasets.folders.listing import FolderReader, Listing, list_files, list_folder
from colabkit.datasets.reading.progress import Phase, Standing, TransferProgress, Watch
from colabkit.datasets.reading.retrying import Retry
from colabkit.errors import DatasetClashError

if TYPE_CHECKING:
    from colabkit.datasets.folders.mirroring import Before
from colabkit.storage import is_slow, mount_of

_MANY_FILES = 300
_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """What a source holds, known before its first file is read.

    Attributes:
        digest: One word that changes when the content does.
        staging_key: What was staged under another key is of no use.
        files: Every file, None where only reading the source tells.
        n_folders: Number of folders.
        nbytes_least: How many bytes the files have at least.
        verb: What making the folder is called: "Copied", "Unpacked".
        digest_as_folder: The digest that the same content has as a folder, "" where it is none.
        unfinished: Paths of files that are left out because they are still being written.
        are_in: Whether what was published holds the same, where the digest alone denies it; finds
            out by reading. None where the digest tells all.
    """

    digest: str
    staging_key: str
    files: Sequence[Member] | None
    n_folders: int
    nbytes_least: int
    verb: str
    digest_as_folder: str = ""
    unfinished: tuple[str, ...] = ()
    are_in: Callable[[DatasetManifest], bool] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Notes:
    """Sentences for the user.

    Attributes:
        hints: On where the files came from.
        losses: On what was left out, or taken otherwise than it was called: said to everybody.
    """

    hints: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()


class Origin(Protocol):
    """What a dataset is made from."""

    def stamp(self) -> str:
        """Returns the source's size and time of change as one word, "" when it tells none."""
        ...

    def contents(self) -> Contents:
        """Reads the source's table of contents."""
        ...

    def fill(self, staging: Staging, before: Before | None) -> Sequence[Member]:
        """Makes every file that is not yet whole, and returns all of them."""
        ...

    def checksum(self) -> str | None:
        """Returns the hash of all bytes read, None where none was asked for."""
        ...

    def notes(self) -> Notes:
        """Returns what there is to say of what was read so far."""
        ...

    def close(self) -> None:
        """Gives back what was needed only while the call lasted."""
        ...


class FolderOrigin:
    """A folder, copied file by file.

    Args:
        root: The folder.
        watch: Is told how far it is.
        retry: Called when the folder does not answer.
        selects: Says which paths to take.
        names: The files to take, as paths inside the folder; all that are in it by default.
        reader: The calls to read the folder by.
    """

    def __init__(
        self,
        root: Path,
        *,
        watch: Watch,
        retry: Retry,
        selects: Callable[[str], bool] | None = None,
        names: Sequence[str] | None = None,
        reader: FolderReader | None = None,
    ) -> None:
        self._root = root
        self._names = names
        self._watch = watch
        self._retry = retry
        self._selects = selects
        self._reader = reader or FolderReader()
        self._listing: Listing | None = None
        self._unfinished: tuple[str, ...] = ()

    def listing(self) -> Listing:
        """Returns what the folder holds, listed once."""
        if self._listing is None:
            # Loaded with the first folder: an archive needs none of what copies files.
            from colabkit.datasets.folders.mirroring import wait_until_stable

            listing = self._listed()
            if self._selects is not None:
                listing = listing.selected(self._selects)
            stable = wait_until_stable(
                listing,
                stat_again=self._stat_again,
                pause=self._watch.pause,
                empty_is_unfinished=self._names is not None,
            )
            self._listing, self._unfinished = stable.listing, stable.unfinished
        return self._listing

    def stamp(self) -> str:
        """Returns the listing's hash: a folder on Drive has no time of change to trust."""
        return self.listing().digest

    def contents(self) -> Contents:
        """Returns the listing."""
        listing = self.listing()
        return Contents(
            digest=listing.digest,
            staging_key="folder",
            files=listing.files,
            n_folders=len(listing.folders),
            nbytes_least=listing.nbytes,
            verb="Copied",
            unfinished=self._unfinished,
            are_in=self._are_in,
        )

    def fill(self, staging: Staging, before: Before | None) -> list[Member]:
        """Copies what is new."""
        from colabkit.datasets.folders.mirroring import mirror

        listing = self.listing()
        self._watch.begin(Phase.COPYING, bytes_total=listing.nbytes, files_total=len(listing.files))
        return mirror(
            self._root,
            listing,
            staging,
            watch=self._watch,
            reader=self._reader,
            retry=self._retry,
            before=before,
        )

    def checksum(self) -> str | None:
        """Has no single hash."""
        return None

    def notes(self) -> Notes:
        """Tells of many files on a slow disk, and of those that are still being written."""
        return Notes(hints=self._hints(), losses=_unfinished_words(self._unfinished))

    def close(self) -> None:
        """Holds nothing."""

    def _are_in(self, manifest: DatasetManifest) -> bool:
        """Whether the files are those that were copied, though an inode changed: by reading."""
        listing = self.listing()
        before = {member.path: member for member in manifest.members()}
        names = {*before, *manifest.folders}
        if names != {*(file.path for file in listing.files), *listing.folders, ""}:
            return False
        pairs = [(file, before[file.path]) for file in listing.files]
        if any(now[1:2] + now[3:4] != then[1:2] + then[3:4] for now, then in pairs):
            return False
        from colabkit.datasets.folders.comparing import rewritten

        others = rewritten(
            self._root,
            [now for now, then in pairs if now.inode is not None and now[4:] != then[4:]],
            {then.path: then.crc32 for then in before.values()},
            reader=self._reader,
            retry=self._retry,
            watch=self._watch,
        )
        return not others

    def _hints(self) -> tuple[str, ...]:
        if self._names is not None:
            return ()
        n_files = len(self.listing().files)
        if n_files <= _MANY_FILES or not (is_slow(self._root) or mount_of(self._root) is not None):
            return ()
        sentence = (
            f"{n_files:,} files one by one are slow: with pack=True they are packed once"
            f" into {packed_path(self._root).name} beside the folder, and read from there."
        )
        return (sentence,)

    def _listed(self) -> Listing:
        if self._names is None:
            return list_folder(
                self._root, reader=self._reader, check=self._watch.check, retry=self._retry
            )
        files = list_files(
            self._root,
            self._names,
            reader=self._reader,
            check=self._watch.check,
            retry=self._retry,
        )
        above = {str(parent) for name in self._names for parent in PurePosixPath(name).parents}
        return Listing(sorted(files, key=lambda file: file.path), sorted(above - {"."}))

    def _stat_again(self, paths: Sequence[str]) -> list[Member | None]:
        return [self._member(path) for path in paths]

    def _member(self, path: str) -> Member | None:
        try:
            return list_files(self._root, [path], reader=self._reader, threads=1)[0]
        except FileNotFoundError:
            return None


def _unfinished_words(paths: Sequence[str]) -> tuple[str, ...]:
    if not paths:
        return ()
    names = ", ".join(paths[:_NAMES_SHOWN]) + (", ..." if len(paths) > _NAMES_SHOWN else "")
    many = f"{len(paths):,} files are" if len(paths) > 1 else "1 file is"
    return (f"{many} still being written and left out ({names}): run this cell again later.",)


def packed_path(root: Path) -> Path:
    """Returns where the archive of a folder lies.

    Example:
        >>> packed_path(Path("/content/drive/MyDrive/cats")).name
        'cats.packed.zip'
    """
    return root.with_name(f"{root.name}.packed.zip")


def files_origin(
    paths: Sequence[str],
    *,
    watch: Watch,
    retry: Retry,
    selects: Callable[[str], bool] | None = None,
) -> FolderOrigin:
    """Returns files as what a dataset is made from: each by its path below the folder of all."""
    root = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))  # noqa: PTH120
    names = [str(Path(path).relative_to(root)) for path in paths]
    return FolderOrigin(root, watch=watch, retry=retry, selects=selects, names=names)


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


class Totals:
    """Adds up the progress of archives that are unpacked side by side.

    Args:
        plans: What each holds.

    Attributes:
        given_up: Set when one has failed: the others may end.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._guard = threading.Lock()
        self._news: dict[int, TransferProgress] = {}
        self._nbytes: int | None = None
        self._files: int | None = None
        if all(plan.nbytes is not None for plan in plans):
            self._nbytes = sum(plan.nbytes or 0 for plan in plans)
            self._files = sum(plan.n_files or 0 for plan in plans)
        self._archive_bytes = sum(plan.archive_bytes for plan in plans)
        self.given_up = threading.Event()

    def standing(self, number: int, now: TransferProgress) -> Standing:
        """Returns how far all are, one of them being as far as said."""
        with self._guard:
            self._news[number] = now
            news = list(self._news.values())
        files = sum(one.files_done for one in news)
        if self._nbytes is None:
            # What it unpacks to is not known: how much of the archives was unpacked is.
            used = sum(one.bytes_used for one in news)
            return Standing(Phase.UNPACKING, used, self._archive_bytes, files, None)
        written = sum(one.bytes_written for one in news)
        return Standing(Phase.UNPACKING, written, self._nbytes, files, self._files)
