"""Archives as what a dataset is made from: one, or several unpacked into one tree."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from colabkit.datasets.archives.kinds import ArchiveKind, Plan, plan_archive
from colabkit.datasets.archives.members import Remark, UnpackedTable, said_once
from colabkit.datasets.archives.safety import Limits, MemberSelection, chosen
from colabkit.datasets.archives.unpacking import unpack
from colabkit.datasets.cache.manifest import Member, damaged_members
from colabkit.datasets.cache.publishing import Staging
from colabkit.datasets.origins.base import Below, Contents, MemberView, Notes, Totals, check_clashes
from colabkit.datasets.origins.parts import ARCHIVE_SUFFIXES, holds_archive, stem_of, suffix_of
from colabkit.datasets.reading.downloads import Downloads
from colabkit.datasets.reading.progress import Phase, StoppedError, TransferProgress, Watch
from colabkit.datasets.reading.retrying import RetriedSource, Retry
from colabkit.datasets.reading.source import Source, stamp_of
from colabkit.datasets.reading.split_names import SplitArchive, name_of, words_on_slices
from colabkit.datasets.reading.web import Access
from colabkit.datasets.reading.workers import Pool
from colabkit.datasets.reading.wrappers import HashedSource, JoinedSource
from colabkit.datasets.writing.tree import Tree
from colabkit.errors import (
    ArchiveCorruptError,
    ArchiveError,
    ArgumentError,
    DatasetClashError,
)
from colabkit.storage import hash_of, names_in

if TYPE_CHECKING:
    from colabkit.datasets.folders.mirroring import Before

_PLANNERS = 8
_NO_ARCHIVE_HINT = (
    "Is it one file and no archive? Read it from its address, as with pandas.read_csv({!r}), or"
    " download it and pass its path: a file on a disk is copied as it is."
)
_VOLUMES_HINT = (
    "The volumes of a rar are read from a disk only: download all of them into one folder, and pass"
    " the path of one."
)
_SIDE_BY_SIDE = 3

Result = TypeVar("Result")


class ArchiveOrigin:
    """Archives, unpacked one after the other into one tree.

    Args:
        paths: Paths or URLs.
        watch: Is told how far it is.
        retry: Called when the source does not answer.
        selection: Members wanted, None for all.
        password: For encrypted archives.
        hashed: What checksum of the one archive to find out: "sha256", "md5", or "" for none.
        limits: What counts as a bomb, None for the usual.
        encoding: Of names that do not tell theirs, None to judge.
        splits: The archives that are in parts.
        access: How to ask for what is behind a URL.
        subfolders: Whether each gets a folder of its own, called as the archive is.
        folders: The folder of each, where it is not called so.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        watch: Watch,
        retry: Retry,
        selection: tuple[str, ...] | None,
        password: str | bytes | None,
        hashed: str,
        limits: Limits | None = None,
        encoding: str | None = None,
        splits: Sequence[SplitArchive] = (),
        access: Access | None = None,
        subfolders: bool = False,
        folders: Sequence[str] = (),
    ) -> None:
        if hashed and len(paths) != 1:
            message = f"{hashed} is of one archive, and the source is {len(paths):,}."
            raise ArgumentError(message, argument=hashed)
        self._paths = tuple(paths)
        self._watch = watch
        self._retry = retry
        self._selection = selection
        self._password = password
        self._hash = hashed
        self._limits = limits
        self._encoding = encoding
        self._splits = {split.name: split for split in splits}
        self._folders = dict(zip(paths, folders, strict=True)) if folders else {}
        if subfolders:
            self._folders = {path: stem_of(name_of(path)) for path in paths}
            _check_stems(self._folders)
        self._checksum: str | None = None
        self._access = access or Access()
        self._downloads = Downloads(watch=watch, retry=retry, access=self._access)
        self._plans: list[Plan] = []
        self._tables: list[UnpackedTable] = []

    def stamp(self) -> str:
        """Returns sizes and times of change."""
        stamps = self._of_each(self._stamp_of, "colabkit-stamp")
        if not all(stamps):
            return ""
        return stamps[0] if len(stamps) == 1 else hash_of("|".join(stamps).encode())

    def contents(self) -> Contents:
        """Plans every archive, several at a time: each is a few slow reads."""
        self._plans = self._of_each(self._plan, "colabkit-plan")
        self._check_clashes([plan.files for plan in self._plans])
        is_listed = all(plan.nbytes is not None for plan in self._plans)
        digests = [self._identity(*pair) for pair in zip(self._plans, self._paths, strict=True)]
        digest = digests[0] if len(digests) == 1 else hash_of("|".join(digests).encode())
        return Contents(
            digest=digest,
            staging_key=f"{digest} {self._selection} {self._encoding} {bool(self._folders)}",
            files=self._members([plan.files for plan in self._plans]) if is_listed else None,
            n_folders=sum(len(plan.folders) for plan in self._plans),
            nbytes_least=sum(map(_nbytes_least, self._plans)),
            verb="Unpacked",
        )

    def fill(self, staging: Staging, before: Before | None) -> Sequence[Member]:  # noqa: ARG002
        """Unpacks what is not yet whole, several archives side by side."""
        totals = Totals(self._plans)
        self._unpack_all(staging, totals)
        if damaged := self._damaged(staging):
            # A call before was killed while it wrote them.
            staging.remove(damaged)
            self._unpack_all(staging, Totals(self._plans))
        # A tar tells its names only when it is read.
        self._check_clashes(self._tables, staging.tree)
        return self._members(self._tables)

    def unpack_into(self, folder: Path) -> Sequence[Member]:
        """Unpacks everything into a folder of the caller's, after ``contents``."""
        self._unpack_to(folder, (), Totals(self._plans))
        self._check_clashes(self._tables, folder)
        return self._members(self._tables)

    def for_inner(self, path: str, folder: str, split: SplitArchive | None = None) -> ArchiveOrigin:
        """Returns what unpacks an archive that lay in this one into a folder."""
        return ArchiveOrigin(
            (path,),
            watch=self._watch,
            retry=self._retry,
            selection=None,
            password=self._password,
            hashed="",
            limits=self._limits,
            encoding=self._encoding,
            splits=() if split is None else (split,),
            folders=(folder,),
        )

    def _members(self, tables: Sequence[Sequence[Any]]) -> MemberView:
        return MemberView(tables, [self._folders.get(path, "") for path in self._paths])

    def _of_each(self, work: Callable[[str], Result], name: str) -> list[Result]:
        """Returns what work gives for each archive; of several, some at a time."""
        if len(self._paths) == 1:
            return [work(self._paths[0])]
        with Pool(_PLANNERS, name) as pool:
            return list(pool.map(work, self._paths))

    def _check_clashes(self, tables: Sequence[Sequence[Any]], tree: Path | None = None) -> None:
        """Refuses names that clash; twins in case only on a disk that takes them for one."""
        # Archives with folders of their own may be parts of one tree all the same.
        inside = [self._folders.get(path, "") for path in self._paths]
        if len(self._paths) > 1 and len(set(inside)) == 1:
            keeps_case = tree is None or Tree(tree).keeps_case
            folders = [plan.folders for plan in self._plans]
            check_clashes(self._paths, tables, folders, keeps_case=keeps_case)

    def _unpack_all(self, staging: Staging, totals: Totals) -> None:
        self._unpack_to(staging.tree, staging.done.keys() | staging.unproven, totals)

    def _unpack_to(self, tree: Path, done: Container[str], totals: Totals) -> None:
        jobs = range(len(self._plans))
        if len(jobs) == 1:
            self._tables = [self._unpack(0, tree, done, totals)]
            return
        with Pool(_SIDE_BY_SIDE, "colabkit-archive") as pool:
            futures = [pool.submit(self._unpack, job, tree, done, totals) for job in jobs]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                failed = any(future.done() and future.exception() for future in futures)
                if failed:
                    totals.given_up.set()
                pool.shutdown(wait=True, cancel_futures=True)
            self._tables = [future.result() for future in _failed_first(futures)]

    def _unpack(
        self, number: int, tree: Path, done: Container[str], totals: Totals
    ) -> UnpackedTable:
        path = self._paths[number]
        folder = self._folders.get(path, "")
        (tree / folder).mkdir(parents=True, exist_ok=True)
        source = self._open(path)

        def tell(now: TransferProgress) -> None:
            if totals.given_up.is_set():
                raise StoppedError
            self._watch.tell(totals.standing(number, now))

        try:
            table = unpack(
                self._plans[number],
                source,
                tree / folder,
                done=Below(done, folder) if folder and done else done,
                on_progress=tell,
                retry=self._retry,
                password=self._password,
            )
            self._check_end(self._plans[number], path)
            if isinstance(source, HashedSource):
                self._watch.begin(Phase.CHECKING)
                self._checksum = source.checksum()
        except ArchiveCorruptError as error:
            self._add_parts(error, path)
            raise
        finally:
            source.close()
        return table

    def _damaged(self, staging: Staging) -> list[str]:
        """Returns the files of a call before that are not what the archives hold."""
        if not staging.unproven:
            return []
        kept = [member for member in self._members(self._tables) if member.path in staging.unproven]
        extra = staging.unproven - {member.path for member in kept}
        damaged = damaged_members(staging.tree, kept)
        staging.proven(member for member in kept if member.path not in set(damaged))
        return [*damaged, *extra]

    def checksum(self) -> str | None:
        """Returns the archive's hash where it was asked for."""
        return self._checksum

    def notes(self) -> Notes:
        """Returns sentences on what was done with some members."""
        sentences = (note for plan in self._plans for note in plan.remarks.sentences())
        return Notes(losses=said_once(sentences))

    def close(self) -> None:
        """Deletes what had to be downloaded."""
        self._downloads.close()

    def _plan(self, path: str) -> Plan:
        self._watch.check()
        source = RetriedSource(self._opened(path), self._retry)
        try:
            return plan_archive(
                source,
                password=self._password,
                members=self._selects(path),
                limits=self._limits,
                encoding=self._encoding,
            )
        except ArchiveError as error:
            self._add_parts(error, path)
            is_named_so = suffix_of(path.partition("?")[0]) in ARCHIVE_SUFFIXES
            is_none = "://" in path and not is_named_so and not holds_archive(source)
            if is_none and isinstance(error, ArchiveCorruptError):
                error.hint = _NO_ARCHIVE_HINT.format(path)
            raise
        finally:
            source.close()

    def _check_end(self, plan: Plan, path: str) -> None:
        """Refuses parts that end like a tar whose program writes no end mark.

        A plain tar that is cut between two members begins anew with each part.
        """
        if path in self._splits and Remark.NO_END in plan.remarks:
            message = f"{path} ends without an end mark, as where its last part is missing."
            raise ArchiveCorruptError(message)
        if path in self._splits and plan.kind is ArchiveKind.TAR and self._splits[path].before:
            plan.remarks.add(Remark.FIRST_PART, name_of(self._splits[path].before))

    def _add_parts(self, error: ArchiveError, path: str) -> None:
        """Tells which parts an archive was read from that is damaged, as one without its last."""
        if not isinstance(error, ArchiveCorruptError):
            return
        if path in self._splits:
            split = self._splits[path]
            is_far_rar = "://" in path and not split.are_joined
            error.hint = _VOLUMES_HINT if is_far_rar else split.words()
        elif "://" not in path:
            error.hint = words_on_slices(path, names_in(Path(path).parent)) or error.hint

    def _stamp_of(self, path: str) -> str:
        if path not in self._splits:
            return stamp_of(path, self._access)
        stamps = [stamp_of(part, self._access) for part in self._splits[path].parts]
        return hash_of("|".join(stamps).encode()) if all(stamps) else ""

    def _identity(self, plan: Plan, path: str) -> str:
        """Returns what tells an archive from a later one of its name.

        The ends of most tars say nothing of what lies between, as a checksum would: there the
        time of change must be the same.
        """
        if plan.digest_tells_all:
            return plan.digest
        return hash_of(f"{plan.digest} {self._stamp_of(path)}".encode())

    def _selects(self, path: str) -> MemberSelection | Sequence[str] | None:
        folder = self._folders.get(path, "")
        if not folder or self._selection is None:
            return self._selection
        wanted = chosen(self._selection)
        return None if wanted is None else lambda inside: wanted(f"{folder}/{inside}")

    def _opened(self, path: str) -> Source:
        if path not in self._splits:
            return self._downloads.opened(path)
        split = self._splits[path]
        if not split.are_joined:
            return self._downloads.opened(split.parts[0])
        with Pool(_PLANNERS, "colabkit-parts") as pool:
            parts = list(pool.map(self._downloads.opened, split.parts))
        return JoinedSource(parts, path)

    def _open(self, path: str) -> Source:
        source = self._opened(path)
        if not self._hash:
            return source
        return HashedSource(source, retry=self._retry, algorithm=self._hash)


def _check_stems(folders: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for path, folder in folders.items():
        other = owners.setdefault(folder.casefold(), path)
        if other != path:
            message = f"{other} and {path} would both get the folder {folder}."
            hint = "Unpack them with one call of dataset each."
            raise DatasetClashError(message, path=folder, sources=(other, path), hint=hint)


def _failed_first(futures: Sequence[Future[UnpackedTable]]) -> Sequence[Future[UnpackedTable]]:
    """Returns the futures as they are, once it is sure that none failed.

    The first failure is raised; that others were stopped because of it says nothing.
    """
    errors = [f.exception() for f in futures if not f.cancelled() and f.exception() is not None]
    if errors:
        raise next((e for e in errors if not isinstance(e, StoppedError)), errors[0])  # type: ignore[misc]
    return futures


def _nbytes_least(plan: Plan) -> int:
    if plan.nbytes is not None:
        return plan.nbytes
    # What unpacks to an unknown size takes at least about its own; of a selection nothing is known.
    return plan.archive_bytes if plan.wanted is None else 0
