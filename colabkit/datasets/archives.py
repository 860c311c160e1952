"""Archives as what a dataset is made from: one, or several unpacked into one tree."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, overload

from colabkit.datasets.hashed_source import HashedSource
from colabkit.datasets.manifest import Member
from colabkit.datasets.mirror import Before
from colabkit.datasets.origins import Contents, Retry
from colabkit.datasets.plan import Plan, plan_archive
from colabkit.datasets.progress import Progress
from colabkit.datasets.source import Source, open_source
from colabkit.datasets.staging import Staging
from colabkit.datasets.unpack import unpack
from colabkit.datasets.watch import Phase, Standing, Watch
from colabkit.errors import ArgumentError, DatasetClashError
from colabkit.storage import hash_of

_PLANNERS = 8
_VALIDATORS = ("ETag", "etag", "Last-Modified", "LastModified", "md5Hash", "mtime", "updated")


class MemberView(Sequence[Member]):
    """The files of several tables as members, each made when it is asked for."""

    def __init__(self, tables: Sequence[Sequence[Any]]) -> None:
        self._tables = tables

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    def __iter__(self) -> Iterator[Member]:
        for table in self._tables:
            for path, nbytes, crc32, *_ in table:
                yield Member(path, nbytes, crc32)

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Member]: ...
    def __getitem__(self, index: int | slice) -> Member | Sequence[Member]:
        if isinstance(index, slice):
            return list(self)[index]
        index = range(len(self))[index]
        for table in self._tables:
            if index < len(table):
                path, nbytes, crc32, *_ = table[index]
                return Member(path, nbytes, crc32)
            index -= len(table)
        raise IndexError(index)


class ArchiveOrigin:
    """Archives, unpacked one after the other into one tree.

    Args:
        paths: Paths or URLs.
        watch: Is told how far it is.
        retry: Called when the source does not answer.
        selection: Members wanted, None for all.
        password: For encrypted archives.
        hashed: Whether to find out the SHA-256 of the one archive.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        watch: Watch,
        retry: Retry,
        selection: tuple[str, ...] | None,
        password: str | None,
        hashed: bool,
    ) -> None:
        if hashed and len(paths) != 1:
            message = f"sha256 is of one archive, and the source is {len(paths):,}."
            raise ArgumentError(message, argument="sha256")
        self._paths = tuple(paths)
        self._watch = watch
        self._retry = retry
        self._selection = selection
        self._password = password
        self._hashed = hashed
        self._sha256: str | None = None
        self._plans: list[Plan] = []

    def stamp(self) -> str:
        """Returns sizes and times of change."""
        stamps = [_stamp_of(path) for path in self._paths]
        if not all(stamps):
            return ""
        return stamps[0] if len(stamps) == 1 else hash_of("|".join(stamps).encode())

    def contents(self) -> Contents:
        """Plans every archive, several at a time: each is a few slow reads."""
        with ThreadPoolExecutor(_PLANNERS, "colabkit-plan") as pool:
            self._plans = list(pool.map(self._plan, self._paths))
        folders = [plan.folders for plan in self._plans]
        _check_clashes(self._paths, [plan.files for plan in self._plans], folders)
        known = all(plan.nbytes is not None for plan in self._plans)
        digests = "|".join(plan.digest for plan in self._plans)
        digest = self._plans[0].digest if len(self._plans) == 1 else hash_of(digests.encode())
        return Contents(
            digest=digest,
            staging_key=f"{digest} {self._selection}",
            files=MemberView([plan.files for plan in self._plans]),
            n_folders=sum(len(plan.folders) for plan in self._plans),
            nbytes=sum(plan.nbytes or 0 for plan in self._plans) if known else None,
            verb="Unpacked",
        )

    def fill(self, staging: Staging, before: Before | None) -> Sequence[Member]:  # noqa: ARG002
        """Unpacks what is not yet whole."""
        totals = _Totals(self._plans)
        tables = []
        for path, plan in zip(self._paths, self._plans, strict=True):
            source = self._open(path)
            try:
                table = unpack(
                    plan,
                    source,
                    staging.tree,
                    done=staging.done,
                    on_progress=lambda now: self._watch.tell(totals.standing(now)),
                    retry=self._retry,
                    password=self._password,
                )
                if isinstance(source, HashedSource):
                    self._watch.begin(Phase.CHECKING)
                    self._sha256 = source.sha256()
            finally:
                source.close()
            totals.finished(sum(file.nbytes for file in table), len(table))
            tables.append(table)
        # A tar tells its names only when it is read.
        _check_clashes(self._paths, tables, [plan.folders for plan in self._plans])
        return MemberView(tables)

    def sha256(self) -> str | None:
        """Returns the archive's hash where it was asked for."""
        return self._sha256

    def _plan(self, path: str) -> Plan:
        source = self._open(path)
        try:
            while True:
                self._watch.check()
                try:
                    return plan_archive(source, password=self._password, members=self._selection)
                except OSError as error:
                    self._retry(error)
        finally:
            source.close()

    def _open(self, path: str) -> Source:
        source = open_source(path)
        return HashedSource(source, retry=self._retry) if self._hashed else source


class _Totals:
    """Adds up the progress of one archive after the other."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._nbytes: int | None = None
        self._files: int | None = None
        if all(plan.nbytes is not None for plan in plans):
            self._nbytes = sum(plan.nbytes or 0 for plan in plans)
            self._files = sum(plan.n_files or 0 for plan in plans)
        self._archive_bytes = sum(plan.archive_bytes for plan in plans)
        self._done_bytes = self._done_files = self._read_bytes = 0
        self._last: Progress | None = None

    def standing(self, now: Progress) -> Standing:
        self._last = now
        if self._nbytes is None:
            # What it unpacks to is not known: how much of the archive was read is.
            done, total = self._read_bytes + now.bytes_read, self._archive_bytes
        else:
            done, total = self._done_bytes + now.bytes_written, self._nbytes
        files = self._done_files + now.files_done
        return Standing(Phase.UNPACKING, done, total, files, self._files)

    def finished(self, nbytes: int, files: int) -> None:
        self._done_bytes += nbytes
        self._done_files += files
        self._read_bytes += self._last.bytes_read if self._last is not None else 0


def _stamp_of(path: str) -> str:
    if "://" not in path:
        status = Path(path).stat()
        return f"{status.st_size}:{status.st_mtime_ns}"
    fsspec = importlib.import_module("fsspec")
    try:
        files, inside = fsspec.core.url_to_fs(path)
        facts = files.info(inside)
    except OSError:
        raise
    except Exception as error:
        # Each file system behind fsspec has errors of its own; to a reader they are one.
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error
    told = [f"{name}={facts[name]}" for name in _VALIDATORS if facts.get(name)]
    return f"{facts.get('size')}:{','.join(told)}" if told else ""


def _check_clashes(
    paths: Sequence[str], tables: Sequence[Sequence[Any]], folders: Sequence[Sequence[str]]
) -> None:
    """Refuses a name that two archives give, in whatever case, or as file and as folder."""
    if len(paths) == 1:
        return
    owners: dict[str, int] = {}
    folder_owners: dict[str, int] = {}
    for number, names in enumerate(folders):
        for name in names:
            folder_owners.setdefault(name.casefold(), number)
    for number, table in enumerate(tables):
        for path, *_ in table:
            folded = path.casefold()
            others = (owners.setdefault(folded, number), folder_owners.get(folded, number))
            other = next((other for other in others if other != number), None)
            if other is None:
                continue
            message = f"{path!r} is in {paths[other]} and in {paths[number]}."
            raise DatasetClashError(
                message,
                path=path,
                sources=(paths[other], paths[number]),
                hint="Unpack them into folders of their own: one call of dataset for each.",
            )
