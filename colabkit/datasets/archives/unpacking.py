"""Unpacks a planned archive straight from its source; the caller's thread keeps watch."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from colabkit.datasets.archives.kinds import ArchiveKind, Plan
from colabkit.datasets.archives.members import FileTable, Remark, UnpackedTable
from colabkit.datasets.archives.names import check_clashes
from colabkit.datasets.archives.safety import MemberSelection, Resolved
from colabkit.datasets.archives.zip_unpacking import ZipUnpacker
from colabkit.datasets.reading.progress import Counter, TransferProgress
from colabkit.datasets.reading.read_ahead import IN_TURN_BYTES, ReadAhead, ReadInTurn
from colabkit.datasets.reading.retrying import RetriedSource, Retry
from colabkit.datasets.reading.source import FileSource, Source
from colabkit.datasets.reading.workers import WorkerGroup
from colabkit.datasets.reading.wrappers import SourceFile
from colabkit.datasets.writing.tree import Tree
from colabkit.datasets.writing.writer_process import FROM_FILES, WriterProcess
from colabkit.errors import ArchivePasswordError, StorageError

if TYPE_CHECKING:
    from colabkit.datasets.archives.adapters import StreamUnpacker
    from colabkit.datasets.archives.seven_zip import SevenZipUnpacker
    from colabkit.datasets.archives.tar_unpacking import TarUnpacker

_TICK_S = 0.1

OnProgress = Callable[[TransferProgress], None]


def unpack(
    plan: Plan,
    source: Source,
    into: Path,
    *,
    done: Container[str] = (),
    on_progress: OnProgress | None = None,
    retry: Retry | None = None,
    password: str | bytes | None = None,
) -> UnpackedTable:
    """Unpacks an archive into a folder, every CRC checked.

    Args:
        plan: What ``plan_archive`` said of it.
        source: The archive.
        into: An existing folder that only this call writes to, empty or filled in part by an
            earlier call that was killed.
        done: Paths that are known to be whole; they are kept and not read again.
        on_progress: Called on this thread about ten times a second.
        retry: Called on this thread when reading the source fails; reading goes on at the byte
            where it broke when it returns, and ends with what it raises.
        password: For an encrypted archive.

    Returns:
        Every file with its size and CRC-32.

    Raises:
        ArchiveUnsafeError: A member of a tar would lead outside, or the archive is a bomb.
        ArchiveCorruptError: A member is damaged.
        StorageError: The source or the folder failed.
    """
    tree = Tree(into)
    watch = _Watch(plan, source, on_progress, retry)
    if not (plan.kind.is_tar or plan.limits.case_clashes or tree.keeps_case):
        names = [file.path for file in plan.files] + [link.path for link in plan.links.to_files]
        check_clashes(names, plan.folders, keeps_case=False)
    tree.make_folders(plan.folders)
    return _UNPACK.get(plan.kind, _unpack_tar)(plan, source, tree, done, password, watch)


class _Watch:
    """What the caller's thread does while the workers do theirs."""

    def __init__(
        self, plan: Plan, source: Source, on_progress: OnProgress | None, retry: Retry | None
    ) -> None:
        self._plan = plan
        self._source = source
        self._on_progress = on_progress
        self.retry = retry

    def here(self, source: Source) -> Source:
        """Returns a source to be read on this thread, which handles its outages itself."""
        return source if self.retry is None else RetriedSource(source, self.retry)

    def over(
        self,
        workers: WorkerGroup,
        ahead: ReadAhead | ReadInTurn | SourceFile,
        counter: Counter,
        *,
        work: Callable[[], None] | None = None,
    ) -> None:
        """Waits for the workers to end, handles outages and tells the progress.

        Args:
            workers: Who works.
            ahead: What they read.
            counter: What they have written.
            work: What is to be done on this thread before.
        """
        try:
            if work is not None:
                workers.do(work)
            while not workers.done(_TICK_S):
                if ahead.outage is not None and self.retry is not None:
                    self.retry(ahead.outage)
                    ahead.resume()
                ahead.hurry()
                self.tell(ahead.bytes_used, counter)
        except StorageError:
            raise
        except OSError as error:
            message = (
                f"Reading {self._source.name} failed ({error.strerror or error}) after "
                f"{ahead.bytes_read:,} of {self._source.nbytes:,} bytes."
            )
            raise StorageError(
                message,
                path=self._source.name,
                operation="read",
                hint="Check that the mount or the connection is there, then run the cell again.",
            ) from error
        finally:
            workers.stop()
        self.tell(ahead.bytes_used, counter)

    def tell(self, bytes_used: int, counter: Counter) -> None:
        """Passes the progress on."""
        if self._on_progress is not None:
            self._on_progress(
                TransferProgress(
                    bytes_used=bytes_used,
                    archive_bytes=self._source.nbytes,
                    bytes_written=counter.bytes_written,
                    nbytes=self._plan.nbytes,
                    files_done=counter.files_done,
                    n_files=self._plan.n_files,
                )
            )


def _unpack_zip(
    plan: Plan,
    source: Source,
    tree: Tree,
    done: Container[str],
    password: str | bytes | None,
    watch: _Watch,
) -> UnpackedTable:
    layout = plan.layout
    if layout is None or not isinstance(plan.files, FileTable):
        raise TypeError(plan.files)
    if layout.encrypted and password is None:
        message = f"{source.name} is encrypted."
        raise ArchivePasswordError(message, hint="Pass password=.")
    cores = os.cpu_count() or 1
    wanted = len(plan.files) >= FROM_FILES and not layout.encrypted
    near = source if wanted and isinstance(source, FileSource) and source.is_near else None
    unpacker = ZipUnpacker(plan.files, layout, tree, done, cores, password, near=near)
    if unpacker.is_small:
        workers = WorkerGroup()
        in_turn = ReadInTurn(watch.here(source), unpacker.byte_ranges)
        process = WriterProcess(tree, wanted=False)
        work = partial(unpacker.work, in_turn, workers, process)
        watch.over(workers, in_turn, unpacker.counter, work=work)
    else:
        archive = None if near is None else near.descriptor()
        begun = partial(WriterProcess, tree, wanted=wanted, archive=archive)
        _unpack_side_by_side(unpacker, source, watch, begun)
    manifest = unpacker.manifest()
    _make_links(plan.links, tree, manifest)
    return manifest


def _unpack_side_by_side(
    unpacker: ZipUnpacker, source: Source, watch: _Watch, begun: Callable[[], WriterProcess]
) -> None:
    """Unpacks a zip on as many threads as there are cores, each with a process that writes."""
    workers = WorkerGroup()
    ahead = ReadAhead(source, unpacker.byte_ranges, workers, retries=watch.retry is not None)
    processes: list[WriterProcess] = []
    try:
        # The first bytes come while the processes start.
        ahead.start(total_bytes=unpacker.total_bytes)
        for number in range(unpacker.unpackers):
            processes.append(begun())
            work = partial(unpacker.work, ahead, workers, processes[-1])
            workers.start(f"unpack-{number}", work, awaited=True)
        watch.over(workers, ahead, unpacker.counter)
    finally:
        workers.stop()
        for process in processes:
            process.close()


def _unpack_tar(
    plan: Plan,
    source: Source,
    tree: Tree,
    done: Container[str],
    password: str | bytes | None,  # noqa: ARG001 - no tar has one
    watch: _Watch,
) -> UnpackedTable:
    from colabkit.datasets.archives.tar_unpacking import TarUnpacker

    def read(
        wanted: MemberSelection | None, encoding: str | None, renamed: Mapping[str, str]
    ) -> TarUnpacker:
        unpacker = TarUnpacker(
            *(plan.kind, source.nbytes, tree, done, plan.limits, wanted, plan.remarks),
            encoding=encoding,
            is_given=plan.encoding is not None,
            renamed=renamed,
        )
        workers = WorkerGroup()
        whole = [(0, source.nbytes)]
        if source.nbytes <= IN_TURN_BYTES:
            in_turn = ReadInTurn(watch.here(source), whole)
            work = partial(unpacker.work, in_turn, workers)
            watch.over(workers, in_turn, unpacker.counter, work=work)
            return unpacker
        ahead = ReadAhead(source, whole, workers, retries=watch.retry is not None)
        ahead.start(total_bytes=source.nbytes)
        unpacker.start(ahead, workers)
        watch.over(workers, ahead, unpacker.counter)
        return unpacker

    unpacker = read(plan.wanted, plan.encoding, {})
    if (encoding := unpacker.names.better()) is not None:
        # The first names that were no UTF-8 spoke for another encoding than all together do.
        unpacker.remove_all()
        unpacker = read(plan.wanted, encoding, {})
    encoding = unpacker.names.encoding
    if plan.encoding is None and encoding is not None:
        plan.remarks.add(Remark.ENCODING, encoding)
    if targets := unpacker.left_out_targets():
        # A hard link's data stands where its first name does, which was not asked for.
        unpacker.take_over(read(targets.__contains__, encoding, targets))
    _make_links(unpacker.links(), tree, unpacker.manifest)
    return unpacker.manifest


def _unpack_7z(
    plan: Plan,
    source: Source,
    tree: Tree,
    done: Container[str],
    password: str | bytes | None,
    watch: _Watch,
) -> UnpackedTable:
    from colabkit.datasets.archives.seven_zip import SevenZipUnpacker

    unpacker = SevenZipUnpacker(plan.files, plan.names, plan.times, tree, done, password)
    return _unpack_members(plan, source, tree, watch, unpacker, unpacker.work)


def _unpack_rar(
    plan: Plan,
    source: Source,
    tree: Tree,
    done: Container[str],
    password: str | bytes | None,
    watch: _Watch,
) -> UnpackedTable:
    from colabkit.datasets.archives.adapters import Rar, StreamUnpacker

    unpacker = StreamUnpacker(plan.files, plan.times, tree, done)

    def work(stream: BinaryIO) -> None:
        unpacker.work(Rar(source, stream, plan.names, password))

    return _unpack_members(plan, source, tree, watch, unpacker, work)


def _unpack_members(
    plan: Plan,
    source: Source,
    tree: Tree,
    watch: _Watch,
    unpacker: SevenZipUnpacker | StreamUnpacker,
    work: Callable[[BinaryIO], None],
) -> UnpackedTable:
    """Unpacks what other packages read, one member after the other."""
    workers = WorkerGroup()
    file = SourceFile(source, workers, retries=watch.retry is not None)
    stream = file.buffered()
    workers.start("unpack", lambda: work(stream), awaited=True)
    watch.over(workers, file, unpacker.counter)
    _make_links(plan.links, tree, unpacker.manifest)
    return unpacker.manifest


def _make_links(links: Resolved, tree: Tree, manifest: UnpackedTable) -> None:
    if not links.to_files and not links.to_folders:
        return
    wanted = {link.target for link in links.to_files}
    facts = {file.path: file for file in manifest if file.path in wanted}
    for link in links.to_files:
        tree.link(link.path, link.target)
        manifest.add(link.path, facts[link.target].nbytes, facts[link.target].crc32)
    for link in links.to_folders:
        tree.symlink(link.path, link.target)


# The others are tars.
_UNPACK = {
    ArchiveKind.ZIP: _unpack_zip,
    ArchiveKind.SEVEN_ZIP: _unpack_7z,
    ArchiveKind.RAR: _unpack_rar,
}
