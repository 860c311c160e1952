"""Decides from a zip's directory alone what will be unpacked, or why nothing will."""

from __future__ import annotations

import itertools
import stat
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from colabkit.datasets.archives.codecs import Password, needed
from colabkit.datasets.archives.members import (
    Column,
    FileTable,
    PathColumn,
    Remark,
    Remarks,
    taken,
)
from colabkit.datasets.archives.names import check_clashes, folders_of, replaced
from colabkit.datasets.archives.safety import (
    Limits,
    Resolved,
    all_plain,
    check_link,
    check_mode,
    placed,
    resolve,
)
from colabkit.datasets.archives.zip_contents import ZipMethod, data_ranges, unpacked
from colabkit.datasets.archives.zip_directory import ZipEntries, is_folder, read_entries
from colabkit.datasets.archives.zip_format import AES_METHOD, LOCAL_BYTES, Tail, zip_end
from colabkit.datasets.reading.source import Source
from colabkit.errors import (
    ArchiveCorruptError,
    ArchivePasswordError,
    ArchiveUnsafeError,
    ArchiveUnsupportedError,
)
from colabkit.storage import hash_of

_ENCRYPTED, _STRONG = 0x1, 0x2040
_UNPACK_HINT = "Unpack it with 7-Zip and pack it again without a password."
_NAME_BYTES_MAX = 255
_ROWS = 1 << 14
_PLAIN_TYPES = frozenset({0, stat.S_IFREG})
_METHODS = {method.value for method in ZipMethod}
_STORED = ZipMethod.STORED.value
_BY_PACKAGES = {
    ZipMethod.DEFLATE64.value: ("inflate64", "a zip packed with deflate64"),
    ZipMethod.PPMD.value: ("pyppmd", "a zip packed with PPMd"),
}


@dataclass(frozen=True, slots=True)
class ZipLayout:
    """Where the members that were kept lie: ``rows`` are their places in the directory.

    ``methods`` are how the kept members are packed, below what may be laid over them.
    """

    entries: ZipEntries
    rows: Column[int]
    bounds: Column[int]
    methods: Column[int]
    encrypted: bool


@dataclass(slots=True)
class _Kept:
    """What a walk over the directory sorts out."""

    paths: PathColumn
    rows: array[int]
    folders: dict[str, int]
    links: dict[str, int]

    def all_folders(self, remarks: Remarks) -> dict[str, None]:
        """Returns every folder, without those empty ones whose name a later file takes."""
        needed = folders_of(self.paths) | folders_of(self.links) | folders_of(self.folders)
        empty = {folder: row for folder, row in self.folders.items() if folder not in needed}
        if empty:
            rows = itertools.chain(zip(self.paths, self.rows, strict=True), self.links.items())
            for path, row in rows:
                if empty.get(path, row) < row:
                    remarks.add(Remark.TWICE, path)
                    del empty[path]
        return needed | dict.fromkeys(empty)


@dataclass(frozen=True, slots=True)
class ZipPlan:
    """What a zip's directory comes to."""

    files: FileTable
    folders: tuple[str, ...]
    links: Resolved
    digest: str
    layout: ZipLayout


def plan_zip(
    source: Source,
    wanted: Callable[[str], bool] | None,
    limits: Limits,
    password: Password,
    remarks: Remarks,
    encoding: str | None,
) -> ZipPlan:
    """Reads a zip's directory and checks every member."""
    tail = Tail(source)
    end = zip_end(source, tail)
    limits.check_counts(end.n_entries, 0)
    raw = tail.read(end.directory_offset, end.directory_bytes)
    if len(raw) != end.directory_bytes:
        message = f"{source.name} ends within its directory."
        raise ArchiveCorruptError(message, hint="Upload or download it again.")
    entries = read_entries(raw, end, archive=source.name, most=limits.files)
    limits.check_counts(len(entries), 0)
    if end.has_more_behind:
        remarks.add(Remark.MORE_BEHIND)
    bounds = _check_places(entries, end.directory_offset)
    kept = _last_of_each(_sort_out(entries, wanted, remarks, encoding), remarks)
    rows = kept.rows
    methods = _methods(entries, rows, kept.paths)
    encrypted = _check_packing(entries, rows, methods, kept.paths, password)
    files = FileTable(
        kept.paths,
        taken(entries.nbytes, rows),
        taken(entries.crcs, rows),
        array("H", (entries.modes[row] & 0o777 for row in rows)),
    )
    limits.check_table(kept.paths, files.nbytes, source.nbytes)
    folders = kept.all_folders(remarks)
    check_clashes([*kept.paths, *kept.links] if kept.links else kept.paths, folders)
    layout = ZipLayout(entries, rows, taken(bounds, rows), methods, encrypted)
    texts = {path: _link_text(source, layout, bounds, row) for path, row in kept.links.items()}
    links = resolve(texts, kept.paths, folders)
    for path in links.left_out:
        remarks.add(Remark.LINK_LEFT_OUT, path)
    digest = hash_of(raw, str(source.nbytes).encode())
    return ZipPlan(files, tuple(folders), links, digest, layout)


def _check_places(entries: ZipEntries, directory_offset: int) -> Column[int]:
    """Returns up to where each member may reach; raises where two share bytes."""
    offsets, packed_bytes = entries.offsets, entries.packed_bytes
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    bounds = offsets[:]
    wrong, limit = None, directory_offset
    for row in reversed(order):
        begin = offsets[row]
        if begin < 0 or begin + LOCAL_BYTES + packed_bytes[row] > limit:
            wrong = row
        bounds[row], limit = limit, begin
    if wrong is None:
        return bounds
    name = entries.raw_name(wrong).decode("utf-8", "replace")
    if wrong == order[-1] or offsets[wrong] < 0:
        message = f"Member {name!r} reaches beyond the {directory_offset:,} bytes of data."
        raise ArchiveCorruptError(message, member=name, hint="Upload or download it again.")
    message = f"Member {name!r} overlaps the next one, as in a bomb."
    raise ArchiveUnsafeError(message, member=name, hint="Don't unpack this archive.")


def _sort_out(
    entries: ZipEntries,
    wanted: Callable[[str], bool] | None,
    remarks: Remarks,
    encoding: str | None,
) -> _Kept:
    kept = _Kept(PathColumn(), array("q"), {}, {})
    rows: Sequence[int] = range(len(entries))
    if wanted is None:
        rows = _take_plain(entries, kept)
    is_given = encoding is not None
    if encoding is None:
        encoding = entries.likely_encoding()
        if encoding != "utf-8":
            remarks.add(Remark.ENCODING, encoding)
    for name, row in zip(entries.names(rows, encoding, is_given=is_given), rows, strict=True):
        mode = entries.modes[row]
        path = placed(name, wanted, remarks)
        if path is None:
            continue
        if stat.S_ISFIFO(mode) and entries.nbytes[row]:
            mode = stat.S_IFREG  # `zip - ` calls what it reads from a pipe so
        if mode:
            check_mode(name, mode)
        if is_folder(name, mode):
            kept.folders[path] = row
        elif stat.S_ISLNK(mode):
            _take_link(path, entries.nbytes[row], kept, remarks)
            kept.links[path] = row
        else:
            kept.paths.append(path)
            kept.rows.append(row)
    return kept


def _last_of_each(kept: _Kept, remarks: Remarks) -> _Kept:
    """Leaves out files and links whose name comes again later, as in a zip that was added to."""
    gone = set(replaced(kept.paths, kept.rows))
    if kept.links:
        for at, (path, row) in enumerate(zip(kept.paths, kept.rows, strict=True)):
            link = kept.links.get(path)
            if link is not None and link > row:
                gone.add(at)
            elif link is not None:
                remarks.add(Remark.TWICE, path)
                del kept.links[path]
    if not gone:
        return kept
    paths, rows = PathColumn(), array("q")
    for at, (path, row) in enumerate(zip(kept.paths, kept.rows, strict=True)):
        if at in gone:
            remarks.add(Remark.TWICE, path)
        else:
            paths.append(path)
            rows.append(row)
    return _Kept(paths, rows, kept.folders, kept.links)


def _take_plain(entries: ZipEntries, kept: _Kept) -> list[int]:
    """Takes the regular files where all have plain names; returns the rows left to look at."""
    modes, sizes, renamed = entries.modes, entries.name_bytes, entries.renamed()
    left: list[int] = []
    for first in range(0, len(entries), _ROWS):
        rows = range(first, min(first + _ROWS, len(entries)))
        plain: list[int] = []
        others: list[int] = []
        for row in rows:
            is_plain = (
                modes[row] & ~0o777 in _PLAIN_TYPES
                and sizes[row] <= _NAME_BYTES_MAX
                and not entries.ends_with_slash(row)
                and row not in renamed
            )
            (plain if is_plain else others).append(row)
        lines = entries.lines(plain)
        if not all_plain(lines) or lines.count(b"\n") != len(plain):
            left += range(first, len(entries))
            break
        kept.paths.extend(lines, map(sizes.__getitem__, plain))
        kept.rows.extend(plain)
        left += others
    return left


def _take_link(path: str, nbytes: int, kept: _Kept, remarks: Remarks) -> None:
    check_link(path, nbytes, len(kept.links))
    if path in kept.links:
        remarks.add(Remark.TWICE, path)


def _methods(entries: ZipEntries, rows: Column[int], paths: PathColumn) -> Column[int]:
    """Returns how members are packed, below the AES that is laid over them."""
    methods = taken(entries.methods, rows)
    if AES_METHOD not in methods:
        return methods
    from colabkit.datasets.archives.zip_encryption import aes_facts

    for index, row in enumerate(rows):
        if methods[index] != AES_METHOD:
            continue
        facts = aes_facts(entries, row)
        if facts is None:
            message = f"Member {paths[index]!r} is encrypted in a way that is not known."
            raise ArchiveUnsupportedError(message, member=paths[index], hint=_UNPACK_HINT)
        methods[index] = facts.method
    return methods


def _check_packing(
    entries: ZipEntries,
    rows: Column[int],
    methods: Column[int],
    paths: PathColumn,
    password: Password,
) -> bool:
    """Checks that every member can be unpacked; returns whether any is encrypted."""
    flags = taken(entries.flags, rows)
    are_aes = [method == AES_METHOD for method in taken(entries.methods, rows)]
    for index, (flag, is_aes) in enumerate(zip(flags, are_aes, strict=True)):
        if flag & _STRONG and not is_aes:
            message = (
                f"Member {paths[index]!r} has PKWARE's strong encryption, which is not read here."
            )
            raise ArchiveUnsupportedError(message, member=paths[index], hint=_UNPACK_HINT)
    if any(are_aes):
        needed("Cryptodome.Cipher.AES", "a zip encrypted with AES")
    for unknown in set(methods) - _METHODS:
        member = paths[methods.index(unknown)]
        message = f"Member {member!r} is packed with method {unknown}."
        hint = "Pack it again with deflate, which every program writes."
        raise ArchiveUnsupportedError(message, member=member, hint=hint)
    for method in _BY_PACKAGES.keys() & set(methods):
        needed(*_BY_PACKAGES[method])
    encrypted = None
    for index, (flag, method, row) in enumerate(zip(flags, methods, rows, strict=True)):
        if flag & _ENCRYPTED:
            encrypted = index if encrypted is None else encrypted
        elif method == _STORED and entries.nbytes[row] != entries.packed_bytes[row]:
            message = f"Member {paths[index]!r} is stored, but lies about its size."
            raise ArchiveCorruptError(message, member=paths[index], hint="Download it again.")
    if encrypted is not None and password is None:
        first = paths[encrypted]
        message = f"Member {first!r} is encrypted."
        raise ArchivePasswordError(message, member=first, hint="Pass password=.")
    return encrypted is not None


def _link_text(source: Source, layout: ZipLayout, bounds: Column[int], row: int) -> str:
    entries = layout.entries
    begin = entries.offsets[row]
    bound = bounds[row] - begin
    data = source.read(begin, min(bound, 1 << 18))
    name = entries.raw_name(row).decode("utf-8", "replace")
    if entries.flags[row] & _ENCRYPTED or entries.methods[row] not in _METHODS:
        message = f"Member {name!r} is an encrypted link."
        raise ArchiveUnsupportedError(message, member=name, hint="Pack the files themselves.")
    ((start, end),) = data_ranges(data, [0], [bound], entries, [row], [name])
    packed = memoryview(data)[start:end]
    facts = (entries.methods[row], entries.nbytes[row], entries.crcs[row])
    return bytes(unpacked(packed, *facts, name)).decode("utf-8", "replace")
