"""Unpacks a tar: one thread unpacks the stream, one cuts it into files, one writes them."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace

from colabkit.datasets.archives.kinds import BY_BSDTAR, ArchiveKind, magic_of, of_other_programs
from colabkit.datasets.archives.members import Remark, Remarks, UnpackedTable
from colabkit.datasets.archives.names import NameReader, Names
from colabkit.datasets.archives.safety import (
    Limits,
    MemberSelection,
    Resolved,
    check_link,
    check_mode,
    member_path,
    placed,
    resolve,
)
from colabkit.datasets.archives.tar_headers import (
    BLOCK_BYTES,
    NOTHING,
    TarHeader,
    TarMember,
    TarType,
    check_kind,
    check_volume,
    filled,
    is_header,
    long_text,
    merged,
    of_gnu,
    of_pax,
    pax_records,
    read_header,
)
from colabkit.datasets.archives.tar_stream import Blocks, cut_hint, unpacked_pieces
from colabkit.datasets.reading.progress import Counter
from colabkit.datasets.reading.read_ahead import Ranges, ReadAhead
from colabkit.datasets.reading.workers import BoundedQueue, WorkerGroup
from colabkit.datasets.writing.small_files import crc32
from colabkit.datasets.writing.tree import Tree
from colabkit.datasets.writing.writer_process import SMALL_BYTES, FileBatches
from colabkit.errors import ArchiveCorruptError, ArchiveUnsafeError, ArchiveUnsupportedError

_QUEUE_BYTES = 32 << 20
_HEADER_DATA_BYTES_MAX = 16 << 20
_SPARSE_GOES_ON_AT = 504
_EMPTY_BLOCK = bytes(BLOCK_BYTES)


class TarUnpacker:
    """The unpacking side of one tar."""

    def __init__(
        self,
        kind: ArchiveKind,
        archive_bytes: int,
        tree: Tree,
        done: Container[str],
        limits: Limits,
        wanted: MemberSelection | None,
        remarks: Remarks,
        *,
        encoding: str | None = None,
        is_given: bool = False,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        self.counter = Counter()
        self.manifest = UnpackedTable()
        self.remarks = remarks
        self.names = NameReader(encoding, is_given=is_given)
        self._renamed = renamed or {}
        self._kind = kind
        self._archive_bytes = archive_bytes
        self._tree = tree
        self._done = done
        self._limits = limits
        self._wanted = wanted
        self._names = Names(keeps_case=limits.case_clashes or tree.keeps_case)
        self._links: dict[str, str] = {}
        self._hard_links: dict[str, str] = {}
        self._came_again: dict[str, int] = {}
        self._linked_at: dict[str, int] = {}
        self._has_end_mark = False
        self._junk = False
        self._unpacked_bytes = 0
        self._members = 0
        self._empty = 0

    def work(self, ranges: Ranges, workers: WorkerGroup) -> None:
        """Unpacks all of a small tar on this thread."""
        self._write(self._pieces(ranges), workers)

    def start(self, ahead: ReadAhead, workers: WorkerGroup) -> None:
        """Starts the threads that unpack a larger one."""
        pieces: BoundedQueue[bytes] = BoundedQueue(workers, _QUEUE_BYTES)
        workers.start("inflate", lambda: self._inflate(ahead, pieces), awaited=True)
        workers.start("write", lambda: self._write(pieces, workers), awaited=True)

    def links(self) -> Resolved:
        """Returns the links, followed on paper; to be asked when all files are there."""
        if not self._links:
            return Resolved()
        files = [file.path for file in self.manifest]
        links = resolve(self._links, files, self._names.folders)
        if wrong := [link for link in links.to_folders if link.path in self._hard_links]:
            # No disk has a folder under two names.
            folders = [link for link in links.to_folders if link not in wrong]
            left_out = (*links.left_out, *(link.path for link in wrong))
            links = replace(links, to_folders=tuple(folders), left_out=left_out)
        for path in links.left_out:
            self.remarks.add(Remark.LINK_LEFT_OUT, path)
        return links

    def remove_all(self) -> None:
        """Removes what this reading has made: its names were read in a wrong encoding."""
        for file in self.manifest:
            if file.path not in self._done:
                self._tree.remove(file.path)
        self._tree.remove_folders(self._names.folders)

    def left_out_targets(self) -> dict[str, str]:
        """Returns files that were not asked for and hard links that were: each with its link."""
        if self._wanted is None or not self._hard_links:
            return {}
        there = {file.path for file in self.manifest} | self._links.keys()
        targets: dict[str, str] = {}
        for path, target in self._hard_links.items():
            if target not in there:
                targets.setdefault(target, path)
        return targets

    def take_over(self, other: TarUnpacker) -> None:
        """Takes the files that another reading has unpacked under the names of hard links."""
        for file in other.manifest:
            self.manifest.add(*file)
            target = self._hard_links[file.path]
            del self._links[file.path]
            for path in [path for path in self._links if self._hard_links.get(path) == target]:
                self._links[path] = "../" * path.count("/") + file.path

    def _inflate(self, ahead: ReadAhead, pieces: BoundedQueue[bytes]) -> None:
        for piece in self._pieces(ahead):
            pieces.put(piece, len(piece))
        pieces.close()

    def _pieces(self, ranges: Ranges) -> Iterator[bytes]:
        byte_range = ranges.take()
        chunks = iter(ranges.chunks(byte_range) if byte_range else ())
        yield from unpacked_pieces(self._kind, chunks, on_junk=self._on_junk)
        # What follows the packed stream is read too: a SHA-256 is of all bytes.
        for _ in chunks:
            pass

    def _on_junk(self) -> None:
        self._junk = True

    def _write(self, pieces: Iterable[bytes], workers: WorkerGroup) -> None:
        self._small = FileBatches(self._tree, self.counter, workers)
        blocks = Blocks(pieces, self._on_piece, hint=cut_hint(self._kind, self._archive_bytes))
        while (member := self._next_member(blocks)) is not None:
            self._take(member, blocks)
        self._tree.make_folders(self._names.add_listed())
        self._small.close()
        if blocks.drain() or self._junk:
            self.remarks.add(Remark.MORE_BEHIND)
        if self._junk and not self._has_end_mark:
            message = f"The {self._kind.value} is damaged: something else follows before its end."
            raise ArchiveCorruptError(message, hint="Upload or download it again.")
        if self._came_again:
            self._check_hard_links()
            self.manifest = self.manifest.of_the_last(without=self._links)

    def _on_piece(self, nbytes: int) -> None:
        self._unpacked_bytes += nbytes
        self._limits.check_bytes(self._unpacked_bytes, self._archive_bytes)

    def _next_member(self, blocks: Blocks) -> TarMember | None:
        """Reads headers up to and with that of a member; None at the end."""
        extended = NOTHING
        while True:
            if extended is NOTHING and self._ends_here(blocks):
                return None
            if not self._members and len(block := blocks.peek(BLOCK_BYTES)) < BLOCK_BYTES:
                self._first_header(block.ljust(BLOCK_BYTES, b"\xff"))
            block = blocks.exactly(BLOCK_BYTES, "")
            header = read_header(block) if self._members else self._first_header(block)
            match header.kind:
                case TarType.PAX:
                    extended = extended.with_pax(
                        pax_records(self._extra(header.nbytes, blocks), self.names)
                    )
                case TarType.LONG_NAME:
                    name = long_text(self._extra(header.nbytes, blocks), self.names)
                    extended = replace(extended, name=name)
                case TarType.LONG_LINK:
                    link = long_text(self._extra(header.nbytes, blocks), self.names)
                    extended = replace(extended, link=link)
                case TarType.PAX_GLOBAL:
                    records = dict(pax_records(self._extra(header.nbytes, blocks), self.names))
                    check_volume(records)
                    if not records.keys().isdisjoint({"path", "linkpath", "size"}):
                        message = "A header for all members gives them one name or size."
                        raise ArchiveUnsafeError(message, hint="Pack the data again.")
                case TarType.LABEL:
                    self._extra(header.nbytes, blocks)
                case _:
                    return merged(header, extended, self.names)

    def _ends_here(self, blocks: Blocks) -> bool:
        """Whether no member follows, as an empty block says, or the end of all bytes."""
        block = blocks.peek(BLOCK_BYTES)
        if block != _EMPTY_BLOCK[: len(block)]:
            return False
        if not block and not self._members:
            return False
        if not block:
            self.remarks.add(Remark.NO_END)
            return True
        # One empty block is enough for all programs, though they write two.
        blocks.skip(len(block), "")
        self._has_end_mark = True
        return True

    def _first_header(self, block: bytes) -> TarHeader:
        try:
            return read_header(block)
        except ArchiveCorruptError as error:
            if self._kind is ArchiveKind.TAR:
                raise
            packing = self._kind.value.removeprefix("tar.")
            message = f"It is one file packed with {packing}, and no archive of several."
            hint = (
                "pandas reads a packed table as it is; to have the packed file on this disk, pass"
                " it in a list. Was it to be an archive, upload or download it again."
            )
            others = (kind for kind in ArchiveKind if kind is not ArchiveKind.TAR)
            if block.startswith(tuple(map(magic_of, others))):
                # Servers that say "Content-Encoding: gzip" of a tar.gz have wget pack it twice.
                message = f"It is an archive that was packed with {packing} once more."
                hint = "Unpack that alone, as with !gunzip, and pass what comes out."
            if what := of_other_programs(lambda place, nbytes: block[place : place + nbytes]):
                message = f"It is {what}, packed with {packing}, which is not unpacked here."
                hint = f"For its files {BY_BSDTAR}."
            raise ArchiveCorruptError(message, hint=hint) from error

    def _extra(self, nbytes: int, blocks: Blocks) -> bytes:
        if nbytes > _HEADER_DATA_BYTES_MAX:
            message = f"A header claims {nbytes:,} bytes."
            raise ArchiveUnsafeError(message, hint="Pack the data again.")
        data = blocks.exactly(nbytes, "")
        blocks.skip(-nbytes % BLOCK_BYTES, "")
        return data

    def _take(self, member: TarMember, blocks: Blocks) -> None:
        path = placed(member.name, self._wanted, self.remarks, as_tar=True)
        path = self._renamed.get(path, path) if path is not None else None
        if member.kind is TarType.UNKNOWN:
            # POSIX wants it so, and other programs do so.
            member.kind = TarType.FILE
            self.remarks.add(Remark.UNKNOWN_KIND, member.name)
        self._count(member)
        self._check_size(member)
        if member.kind is TarType.HARD_LINK:
            member.nbytes = _data_bytes(member, blocks)
        if path is not None:
            check_kind(member)
        if path is not None and member.kind is TarType.FILE:
            check_mode(member.name, member.mode)
            self._take_file(member, path, blocks)
        elif path is not None and member.kind is TarType.SPARSE:
            self._take_sparse(member, path, blocks)
        else:
            if path is not None and member.kind is TarType.FOLDER:
                self._names.list_folder(path)
            elif path is not None:
                self._tree.make_folders(self._add_name(path))
                self._take_link(member, path)
            while member.kind is TarType.SPARSE and member.goes_on:
                member.goes_on = bool(blocks.exactly(BLOCK_BYTES, member.name)[_SPARSE_GOES_ON_AT])
            _skip(member, blocks)
        blocks.skip(-member.nbytes % BLOCK_BYTES, member.name)

    def _count(self, member: TarMember) -> None:
        self._members += 1
        self._empty += member.kind is TarType.FILE and not member.nbytes
        self._limits.check_counts(self._members, self._empty, member=member.name)

    def _add_name(self, path: str) -> list[str]:
        """Takes a name; one that came before is added again, as by tar -r and -u."""
        if self._names.has_file(path):
            self.remarks.add(Remark.TWICE, path)
            self._came_again[path] = self._members
            self._links.pop(path, None)
            self._hard_links.pop(path, None)
            # Another thread may be writing the one before: it may not come last.
            self._small.wait_until_written()
        return self._names.add_file(path)

    def _check_hard_links(self) -> None:
        """Raises where a file comes again behind a hard link to what it was before."""
        for path, target in self._hard_links.items():
            if self._came_again.get(target, 0) > self._linked_at[path]:
                message = f"Member {path!r} is a hard link to {target!r}, which comes again later."
                hint = "Unpack it with `tar -xf`, and pass the folder."
                raise ArchiveUnsupportedError(message, member=path, hint=hint)

    def _check_size(self, member: TarMember) -> None:
        claimed = self._unpacked_bytes + member.nbytes
        self._limits.check_bytes(claimed, self._archive_bytes, member=member.name)
        if self._kind is ArchiveKind.TAR and member.nbytes > self._archive_bytes:
            message = f"Member {member.name!r} claims {member.nbytes:,} bytes, more than there are."
            hint = cut_hint(self._kind, self._archive_bytes)
            raise ArchiveCorruptError(message, member=member.name, hint=hint)

    def _take_file(self, member: TarMember, path: str, blocks: Blocks) -> None:
        self._tree.make_folders(self._add_name(path))
        if path in self._done:
            crc = _skip(member, blocks)
            self._tree.date(path, member.time_s)
            self.counter.add_done(member.nbytes)
        elif member.nbytes <= SMALL_BYTES:
            pieces = blocks.pieces(member.nbytes, path)
            crc = 0
            for piece in pieces:
                crc = crc32(piece, crc)
            self._small.put(path, pieces, member.nbytes, crc, member.mode, member.time_s)
        else:
            crc = self._copy(member, path, blocks)
            self.counter.files_done += 1
        self.manifest.add(path, member.nbytes, crc)

    def _take_sparse(self, member: TarMember, path: str, blocks: Blocks) -> None:
        """Writes a file of which only some pieces are in the archive; the rest is zeros."""
        name = member.name
        if member.sparse:
            spec = of_pax(member.sparse, lambda nbytes: blocks.exactly(nbytes, name), name)
        else:
            spec = of_gnu(member.block, lambda: blocks.exactly(BLOCK_BYTES, name), name)
        spec.check(name, member.nbytes)
        self._unpacked_bytes += spec.nbytes
        self._limits.check_bytes(self._unpacked_bytes, self._archive_bytes, member=name)
        self._tree.make_folders(self._add_name(path))
        crc = 0
        descriptor = self._tree.create(path, member.mode)
        try:
            for piece in filled(spec, lambda nbytes: blocks.views(nbytes, name)):
                crc = crc32(piece, crc)
                self._tree.write(descriptor, piece, path)
                self.counter.bytes_written += len(piece)
            self._tree.date(descriptor, member.time_s)
        finally:
            os.close(descriptor)
        self.counter.files_done += 1
        self.manifest.add(path, spec.nbytes, crc)

    def _copy(self, member: TarMember, path: str, blocks: Blocks) -> int:
        """Writes a large member's content piece by piece; returns its CRC."""
        crc = 0
        descriptor = self._tree.create(path, member.mode)
        try:
            for piece in blocks.views(member.nbytes, path):
                crc = crc32(piece, crc)
                self._tree.write(descriptor, piece, path)
                self.counter.bytes_written += len(piece)
            self._tree.date(descriptor, member.time_s)
        finally:
            os.close(descriptor)
        return crc

    def _take_link(self, member: TarMember, path: str) -> None:
        target = member.link
        if member.kind is TarType.HARD_LINK:
            # A hard link names its target from the top of the archive.
            self._hard_links[path] = member_path(target, as_tar=True)[0]
            self._linked_at[path] = self._members
            target = "../" * path.count("/") + self._hard_links[path]
        check_link(path, len(target), len(self._links))
        self._links[path] = target


def _data_bytes(member: TarMember, blocks: Blocks) -> int:
    """Returns how much data follows a hard link: old programs declare some and write none."""
    if not member.maybe_nbytes:
        return 0
    block = blocks.peek(BLOCK_BYTES)
    follows = len(block) < BLOCK_BYTES or block == _EMPTY_BLOCK or is_header(block)
    return 0 if follows else member.maybe_nbytes


def _skip(member: TarMember, blocks: Blocks) -> int:
    """Passes over a member's content; returns its CRC."""
    crc = 0
    for view in blocks.views(member.nbytes, member.name):
        crc = crc32(view, crc)
    return crc
