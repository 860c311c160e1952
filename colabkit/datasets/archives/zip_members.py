"""Decides from a zip's directory alone what will be unpacked, or why nothing will."""

from __future__ import annotations

import stat
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from colabkit.datasets.archives.codecs import Password, needed
from colabkit.datasets.archives.members import (
    Column,
    FileTable,
    PathColumn,
    Remark,
    Remarks,
    are_in,
)
from colabkit.datasets.archives.names import check_clashes, folders_of, replaced
from colabkit.datasets.archives.safety import (
    LINK_BYTES_MAX,
    Limits,
    Resolved,
    all_plain,
    check_mode,
    parents,
    placed,
    resolve,
)
from colabkit.datasets.archives.zip_contents import ZipMethod, data_ranges, unpacked
from colabkit.datasets.archives.zip_directory import ZipEntries, is_folder, read_entries
from colabkit.datasets.archives.zip_encryption import AES_METHOD, aes_facts
from colabkit.datasets.archives.zip_format import LOCAL_BYTES, Tail, zip_end
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
_LINKS_MAX = 100_000
_NAME_BYTES_MAX = 255
_ROWS = 1 << 14
_METHODS = {method.value for method in ZipMethod}


@dataclass(frozen=True, slots=True)
class ZipLayout:
    """Where the members that were kept lie: ``rows`` are their places in the directory.

    ``methods`` are how the kept members are packed, below what may be laid over them.
    """

    entries: ZipEntries
    rows: Column
    bounds: Column
    methods: Column
    encrypted: bool


@dataclass(slots=True)
class _Kept:
    """What a walk over the directory sorts out."""

    paths: PathColumn
    rows: array[int]
    folders: dict[str, None]
    links: dict[str, int]


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
    rows = np.array(kept.rows, np.int64)
    methods = _methods(entries, rows, kept.paths)
    encrypted = _check_packing(entries, rows, methods, kept.paths, password)
    files = FileTable(
        kept.paths, entries.nbytes[rows], entries.crcs[rows], entries.modes[rows] & 0o777
    )
    limits.check_table(kept.paths, files.nbytes, source.nbytes)
    folders = folders_of(kept.paths) | folders_of(kept.links) | kept.folders
    check_clashes([*kept.paths, *kept.links] if kept.links else kept.paths, folders)
    layout = ZipLayout(entries, rows, bounds[rows], methods, encrypted)
    texts = {path: _link_text(source, layout, bounds, row) for path, row in kept.links.items()}
    links = resolve(texts, kept.paths, folders)
    for path in links.left_out:
        remarks.add(Remark.LINK_LEFT_OUT, path)
    digest = hash_of(raw, str(source.nbytes).encode())
    return ZipPlan(files, tuple(folders), links, digest, layout)


def _check_places(entries: ZipEntries, directory_offset: int) -> Column:
    """Returns up to where each member may reach; raises where two share bytes."""
    order = np.argsort(entries.offsets, kind="stable")
    begins = entries.offsets[order]
    ends = begins + LOCAL_BYTES + entries.packed_bytes[order]
    limits = np.append(begins[1:], directory_offset)[: len(begins)]
    wrong = np.flatnonzero((ends > limits) | (begins < 0))
    if len(wrong):
        row = int(order[wrong[0]])
        name = entries.raw_name(row).decode("utf-8", "replace")
        if wrong[0] == len(order) - 1 or begins[wrong[0]] < 0:
            message = f"Member {name!r} reaches beyond the {directory_offset:,} bytes of data."
            raise ArchiveCorruptError(message, member=name, hint="Upload or download it again.")
        message = f"Member {name!r} overlaps the next one, as in a bomb."
        raise ArchiveUnsafeError(message, member=name, hint="Don't unpack this archive.")
    bounds = np.empty(len(order), np.int64)
    bounds[order] = limits
    return bounds


def _sort_out(
    entries: ZipEntries,
    wanted: Callable[[str], bool] | None,
    remarks: Remarks,
    encoding: str | None,
) -> _Kept:
    kept = _Kept(PathColumn(), array("q"), {}, {})
    rows = np.arange(len(entries))
    if wanted is None:
        rows = _take_plain(entries, kept)
    is_given = encoding is not None
    if encoding is None:
        encoding = entries.likely_encoding()
        if encoding != "utf-8":
            remarks.add(Remark.ENCODING, encoding)
    for name, row in zip(
        entries.names(rows, encoding, is_given=is_given), rows.tolist(), strict=True
    ):
        mode = int(entries.modes[row])
        path = placed(name, wanted, remarks)
        if path is None:
            continue
        if stat.S_ISFIFO(mode) and entries.nbytes[row]:
            mode = stat.S_IFREG  # `zip - ` calls what it reads from a pipe so
        if mode:
            check_mode(name, mode)
        if is_folder(name, mode):
            kept.folders.update(dict.fromkeys(reversed(list(parents(path)))))
            kept.folders[path] = None
        elif stat.S_ISLNK(mode):
            _check_link(path, int(entries.nbytes[row]), kept)
            kept.links[path] = row
        else:
            kept.paths.append(path)
            kept.rows.append(row)
    return kept


def _last_of_each(kept: _Kept, remarks: Remarks) -> _Kept:
    """Leaves out files whose name comes again later, as in a zip that was added to."""
    gone = set(replaced(kept.paths))
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


def _take_plain(entries: ZipEntries, kept: _Kept) -> Column:
    """Takes the regular files where all have plain names; returns the rows left to look at."""
    modes, sizes = entries.modes, entries.name_bytes
    plain = (modes & ~np.uint16(0o777) == 0) | (modes & ~np.uint16(0o777) == stat.S_IFREG)
    plain &= ~entries.are_renamed() & ~entries.ends_with_slash() & (sizes <= _NAME_BYTES_MAX)
    rows = np.flatnonzero(plain)
    for first in range(0, len(rows), _ROWS):
        chosen = rows[first : first + _ROWS]
        lines = entries.lines(chosen)
        if all_plain(lines) and lines.count(b"\n") == len(chosen):
            kept.paths.extend(lines, sizes[chosen])
            kept.rows.extend(chosen.tolist())
        else:
            plain[rows[first:]] = False
            break
    return np.flatnonzero(~plain)


def _check_link(path: str, nbytes: int, kept: _Kept) -> None:
    if nbytes > LINK_BYTES_MAX or len(kept.links) >= _LINKS_MAX or path in kept.links:
        message = f"Member {path!r} is a link of {nbytes:,} bytes, or one of too many."
        raise ArchiveUnsafeError(message, member=path, hint="Pack the files themselves.")


def _methods(entries: ZipEntries, rows: Column, paths: PathColumn) -> Column:
    """Returns how members are packed, below the AES that is laid over them."""
    methods = entries.methods[rows]
    for index in np.flatnonzero(methods == AES_METHOD).tolist():
        facts = aes_facts(entries, int(rows[index]))
        if facts is None:
            message = f"Member {paths[index]!r} is encrypted in a way that is not known."
            raise ArchiveUnsupportedError(message, member=paths[index], hint=_UNPACK_HINT)
        methods[index] = facts.method
    return methods


def _check_packing(
    entries: ZipEntries, rows: Column, methods: Column, paths: PathColumn, password: Password
) -> bool:
    """Checks that every member can be unpacked; returns whether any is encrypted."""
    flags = entries.flags[rows]
    are_aes = entries.methods[rows] == AES_METHOD
    for index in np.flatnonzero((flags & _STRONG != 0) & ~are_aes).tolist():
        message = f"Member {paths[index]!r} has PKWARE's strong encryption, which is not read here."
        raise ArchiveUnsupportedError(message, member=paths[index], hint=_UNPACK_HINT)
    if are_aes.any():
        needed("Cryptodome.Cipher.AES", "a zip encrypted with AES")
    for index in np.flatnonzero(~are_in(methods, list(_METHODS))).tolist():
        message = f"Member {paths[index]!r} is packed with method {methods[index]}."
        hint = "Pack it again with deflate, which every program writes."
        raise ArchiveUnsupportedError(message, member=paths[index], hint=hint)
    if (methods == ZipMethod.DEFLATE64.value).any():
        needed("inflate64", "a zip packed with deflate64")
    encrypted = flags & _ENCRYPTED != 0
    stored = (methods == ZipMethod.STORED.value) & ~encrypted
    for index in np.flatnonzero(
        stored & (entries.nbytes[rows] != entries.packed_bytes[rows])
    ).tolist():
        message = f"Member {paths[index]!r} is stored, but lies about its size."
        raise ArchiveCorruptError(message, member=paths[index], hint="Download it again.")
    if encrypted.any() and password is None:
        first = paths[int(np.argmax(encrypted))]
        message = f"Member {first!r} is encrypted."
        raise ArchivePasswordError(message, member=first, hint="Pass password=.")
    return bool(encrypted.any())


def _link_text(source: Source, layout: ZipLayout, bounds: Column, row: int) -> str:
    entries = layout.entries
    begin = int(entries.offsets[row])
    bound = int(bounds[row]) - begin
    data = source.read(begin, min(bound, 1 << 18))
    name = entries.raw_name(row).decode("utf-8", "replace")
    if int(entries.flags[row]) & _ENCRYPTED or int(entries.methods[row]) not in _METHODS:
        message = f"Member {name!r} is an encrypted link."
        raise ArchiveUnsupportedError(message, member=name, hint="Pack the files themselves.")
    one = np.array([row])
    places = np.zeros(1, np.int64)
    ranges = data_ranges(data, places, places + bound, entries, one, [name])
    start, end = ranges[:, 0].tolist()
    packed = memoryview(data)[start:end]
    facts = (int(entries.methods[row]), int(entries.nbytes[row]), int(entries.crcs[row]))
    return bytes(unpacked(packed, *facts, name)).decode("utf-8", "replace")
