"""Unpacks a tar: one thread unpacks the stream, one cuts it into files, one writes them."""

from __future__ import annotations

import os
from collections.abc import Container

from colabkit.datasets.archives.kinds import ArchiveKind
from colabkit.datasets.archives.tar.headers import (
    BLOCK_BYTES,
    NOTHING,
    Extended,
    TarHeader,
    TarMember,
    TarType,
    long_text,
    merged,
    pax_records,
    read_header,
)
from colabkit.datasets.archives.tar.stream import Blocks, unpacked_pieces
from colabkit.datasets.members import (
    LINK_BYTES_MAX,
    Limits,
    Names,
    Resolved,
    UnpackedTable,
    Wanted,
    check_mode,
    is_junk,
    resolve,
    safe_path,
)
from colabkit.datasets.reading import ReadAhead
from colabkit.datasets.transfer import Counter, Crew, Pipe
from colabkit.datasets.writing import SMALL_BYTES, FileBatches, Tree, crc32
from colabkit.errors import ArchiveCorruptError, ArchiveUnsafeError

_PIPE_BYTES = 32 << 20
_HEADER_DATA_BYTES_MAX = 1 << 20
_LINKS_MAX = 100_000
_PERMISSIONS = 0o7777
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
        wanted: Wanted | None,
    ) -> None:
        self.counter = Counter()
        self.manifest = UnpackedTable()
        self._kind = kind
        self._archive_bytes = archive_bytes
        self._tree = tree
        self._done = done
        self._limits = limits
        self._wanted = wanted
        self._names = Names(case_clashes=limits.case_clashes)
        self._links: dict[str, str] = {}
        self._unpacked_bytes = 0
        self._members = 0
        self._empty = 0

    def start(self, ahead: ReadAhead, crew: Crew) -> None:
        """Starts the threads."""
        pieces: Pipe[bytes] = Pipe(crew, _PIPE_BYTES)
        crew.start("inflate", lambda: self._inflate(ahead, pieces), awaited=True)
        crew.start("write", lambda: self._write(pieces, crew), awaited=True)

    def links(self) -> Resolved:
        """Returns the links, followed on paper; to be asked when all files are there."""
        if not self._links:
            return Resolved()
        files = [file.path for file in self.manifest]
        return resolve(self._links, files, self._names.folders)

    def _inflate(self, ahead: ReadAhead, pieces: Pipe[bytes]) -> None:
        stretch = ahead.take()
        for piece in unpacked_pieces(self._kind, ahead.chunks(stretch) if stretch else ()):
            pieces.put(piece, len(piece))
        pieces.close()

    def _write(self, pieces: Pipe[bytes], crew: Crew) -> None:
        self._small = FileBatches(self._tree, self.counter, crew)
        blocks = Blocks(pieces, self._on_piece)
        while (member := self._next_member(blocks)) is not None:
            self._take(member, blocks)
        self._small.close()
        blocks.drain()

    def _on_piece(self, nbytes: int) -> None:
        self._unpacked_bytes += nbytes
        self._limits.check_bytes(self._unpacked_bytes, self._archive_bytes)

    def _next_member(self, blocks: Blocks) -> TarMember | None:
        """Reads headers up to and with that of a member; None at the end mark."""
        extended = NOTHING
        while True:
            block = blocks.exactly(BLOCK_BYTES, "")
            if block == _EMPTY_BLOCK:
                # Two empty blocks end a tar.
                if blocks.exactly(BLOCK_BYTES, "") != _EMPTY_BLOCK:
                    message = "An empty block stands between two members."
                    raise ArchiveCorruptError(message, hint="Upload or download it again.")
                return None
            header = read_header(block) if self._members else self._first_header(block)
            match header.kind:
                case TarType.PAX:
                    extended = extended.with_pax(pax_records(self._extra(header.nbytes, blocks)))
                case TarType.LONG_NAME:
                    name = long_text(self._extra(header.nbytes, blocks))
                    extended = Extended(name, extended.link, extended.nbytes)
                case TarType.LONG_LINK:
                    link = long_text(self._extra(header.nbytes, blocks))
                    extended = Extended(extended.name, link, extended.nbytes)
                case TarType.PAX_GLOBAL:
                    records = pax_records(self._extra(header.nbytes, blocks))
                    if not records.keys().isdisjoint({"path", "linkpath", "size"}):
                        message = "A header for all members gives them one name or size."
                        raise ArchiveUnsafeError(message, hint="Pack the data again.")
                case TarType.LABEL:
                    continue
                case _:
                    return merged(header, extended)

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
            raise ArchiveCorruptError(message, hint=hint) from error

    def _extra(self, nbytes: int, blocks: Blocks) -> bytes:
        if nbytes > _HEADER_DATA_BYTES_MAX:
            message = f"A header claims {nbytes:,} bytes."
            raise ArchiveUnsafeError(message, hint="Pack the data again.")
        data = blocks.exactly(nbytes, "")
        blocks.skip(-nbytes % BLOCK_BYTES, "")
        return data

    def _take(self, member: TarMember, blocks: Blocks) -> None:
        path = safe_path(member.name)
        self._members += 1
        if member.kind is TarType.FILE:
            check_mode(member.name, member.mode & _PERMISSIONS)
            if not member.nbytes:
                self._empty += 1
        self._limits.check_counts(self._members, self._empty, member=path)
        self._check_size(member)
        left_out = not path or is_junk(path)
        left_out |= self._wanted is not None and not self._wanted(path)
        if member.kind is TarType.FILE:
            if left_out:
                _skip(member, blocks)
            else:
                self._take_file(member, path, blocks)
            blocks.skip(-member.nbytes % BLOCK_BYTES, path)
        elif not left_out and member.kind is TarType.FOLDER:
            self._tree.make_folders(self._names.add_folder(path))
        elif not left_out:
            self._tree.make_folders(self._names.add_file(path))
            self._take_link(member, path)

    def _check_size(self, member: TarMember) -> None:
        claimed = self._unpacked_bytes + member.nbytes
        self._limits.check_bytes(claimed, self._archive_bytes, member=member.name)
        if self._kind is ArchiveKind.TAR and member.nbytes > self._archive_bytes:
            message = f"Member {member.name!r} claims {member.nbytes:,} bytes, more than there are."
            raise ArchiveCorruptError(message, member=member.name, hint="Download it again.")

    def _take_file(self, member: TarMember, path: str, blocks: Blocks) -> None:
        self._tree.make_folders(self._names.add_file(path))
        if path in self._done:
            crc = _skip(member, blocks)
            self.counter.add_done(member.nbytes)
        elif member.nbytes <= SMALL_BYTES:
            pieces = blocks.pieces(member.nbytes, path)
            crc = 0
            for piece in pieces:
                crc = crc32(piece, crc)
            self._small.put(path, pieces, member.nbytes, crc, member.mode)
        else:
            crc = self._copy(member, path, blocks)
            self.counter.files_done += 1
        self.manifest.add(path, member.nbytes, crc)

    def _copy(self, member: TarMember, path: str, blocks: Blocks) -> int:
        """Writes a large member's content piece by piece; returns its CRC."""
        crc = 0
        descriptor = self._tree.create(path, member.mode)
        try:
            for piece in blocks.views(member.nbytes, path):
                crc = crc32(piece, crc)
                self._tree.write(descriptor, piece, path)
                self.counter.bytes_written += len(piece)
        finally:
            os.close(descriptor)
        return crc

    def _take_link(self, member: TarMember, path: str) -> None:
        target = member.link
        if member.kind is TarType.HARD_LINK:
            # A hard link names its target from the top of the archive.
            target = "../" * path.count("/") + safe_path(target)
        if len(self._links) >= _LINKS_MAX or len(target) > LINK_BYTES_MAX:
            message = f"Member {path!r} is one of too many links, or a very long one."
            raise ArchiveUnsafeError(message, member=path, hint="Pack the files themselves.")
        self._links[path] = target


def _skip(member: TarMember, blocks: Blocks) -> int:
    """Passes over a member's content; returns its CRC."""
    crc = 0
    for view in blocks.views(member.nbytes, member.name):
        crc = crc32(view, crc)
    return crc
