"""What was unpacked: a manifest of every file, and whether a folder is still what it says."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import xxhash

from colabkit.datasets.reading.workers import Pool

_MAGIC = b"colabkit dataset 1 "
_CHUNK = 1 << 12
_READ_BYTES = 1 << 20
_BATCH = 64
Item = TypeVar("Item")
Result = TypeVar("Result")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Member(NamedTuple):
    """A file of a dataset.

    Attributes:
        path: Its path inside the dataset, with slashes.
        nbytes: Its size.
        crc32: CRC of its content, None where nobody read it.
        mtime_ns: Its own time of change, where the dataset is a copied folder.
        inode: Its number on its disk, None where that means nothing, as on Drive.
        ctime_ns: When the inode changed, which nobody sets back; None likewise.
    """

    path: str
    nbytes: int
    crc32: int | None = None
    mtime_ns: int | None = None
    inode: int | None = None
    ctime_ns: int | None = None


class FolderState(enum.Enum):
    """What lies where the dataset belongs."""

    ABSENT = "nothing, or an empty folder"
    WHOLE = "the folder that was published, with nothing added or removed"
    TOUCHED = "the folder that was published; files came, went or were renamed"
    DAMAGED = "the folder that was published; files are missing or have another size"
    MOVED = "a folder beside the manifest of one that lay elsewhere"
    FOREIGN = "something that was not published"


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """A published dataset in a few words.

    Attributes:
        source: Where it comes from, as one absolute name.
        stamp: The source's size and time of change, as one word.
        digest: Hash of the source's table of contents.
        selection: The members asked for, None for all.
        sha256: The archive's checksum where it was asked for, an MD5 after "md5:".
        n_files: Number of files.
        nbytes: Their sizes added up.
        inode: The folder's number on its file system.
        boot: Which run of the machine it was published in.
        synced: Whether its bytes were made durable before it was published.
        published_s: When, in seconds since the epoch.
    """

    source: str
    stamp: str
    digest: str
    selection: tuple[str, ...] | None
    sha256: str | None
    n_files: int
    nbytes: int
    inode: int
    boot: str
    synced: bool
    published_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetManifest:
    """A published dataset.

    Attributes:
        header: What it is.
        folders: Time of change in ns by each folder's path; a file that comes, goes or is
            renamed changes its folder's.
        packed_members: The members, still as text; ``members`` reads them.
    """

    header: Header
    folders: Mapping[str, int]
    packed_members: bytes

    def members(self) -> list[Member]:
        """Returns every file."""
        return [Member(*row) for row in json.loads(self.packed_members)]


def pack_members(members: Iterable[Member]) -> bytes:
    """Returns members as text; holds no second copy of more than some of them."""
    text = bytearray(b"[")
    waiting = iter(members)
    while rows := list(islice(waiting, _CHUNK)):
        text += json.dumps(rows, separators=(",", ":")).encode()[1:-1] + b","
    if text.endswith(b","):
        text.pop()
    return bytes(text + b"]")


def encode(manifest: DatasetManifest) -> bytes:
    """Returns a manifest's bytes: a hash of all that follows, then one line a part."""
    head = json.dumps(dataclasses.asdict(manifest.header), separators=(",", ":")).encode()
    folders = json.dumps(dict(manifest.folders), separators=(",", ":")).encode()
    body = b"\n".join((head, folders, manifest.packed_members))
    return _MAGIC + xxhash.xxh3_128_hexdigest(body).encode() + b"\n" + body


def decode(data: bytes) -> DatasetManifest | None:
    """Returns the manifest in some bytes, None when they are not whole."""
    first, _, body = data.partition(b"\n")
    if first != _MAGIC + xxhash.xxh3_128_hexdigest(body).encode():
        return None
    head, folders, members = body.split(b"\n", 2)
    fields: dict[str, Any] = json.loads(head)
    if fields["selection"] is not None:
        fields["selection"] = tuple(fields["selection"])
    return DatasetManifest(Header(**fields), json.loads(folders), members)


def read_manifest(path: Path) -> DatasetManifest | None:
    """Returns the manifest in a file, None when there is none or it is not whole."""
    try:
        return decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def boot_id() -> str:
    """Returns which run of this machine it is, "" where it does not say.

    What a killed process wrote is still there; what a machine wrote before it went down may
    not be.
    """
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def folder_state(folder: Path, manifest: DatasetManifest | None) -> FolderState:
    """Returns the state of a folder by looking at its folders only, never at its files.

    It sees every file that came, went or was renamed, and none that was changed in place.
    """
    try:
        status = os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return FolderState.ABSENT
    if not _is_folder(folder) or manifest is None or status.st_ino != manifest.header.inode:
        if _is_empty_folder(folder):
            return FolderState.ABSENT
        # A cache that was copied or moved to another disk has its numbers changed.
        is_moved = manifest is not None and _is_folder(folder)
        return FolderState.MOVED if is_moved else FolderState.FOREIGN
    return FolderState.WHOLE if _times_equal(folder, manifest.folders) else FolderState.TOUCHED


def sizes_state(folder: Path, members: Sequence[Member]) -> FolderState:
    """Returns WHOLE or DAMAGED by the presence and size of every file; reads no data."""
    present = dict(walk_sizes(folder))
    whole = all(present.get(member.path) == member.nbytes for member in members)
    return FolderState.WHOLE if whole else FolderState.DAMAGED


def damaged_members(
    folder: Path, members: Sequence[Member], *, count: Callable[..., None] | None = None
) -> list[str]:
    """Returns the files that are missing or not what they were, by reading all of them.

    Args:
        folder: Where they lie.
        members: What they have to be.
        count: Is told ``nbytes=`` and ``files=`` of each that was read.
    """

    def differs(member: Member) -> bool:
        if count is not None:
            count(nbytes=member.nbytes, files=1)
        try:
            nbytes, crc32 = measure(folder / member.path)
        except OSError:
            return True
        return nbytes != member.nbytes or (member.crc32 is not None and crc32 != member.crc32)

    found = parallel(differs, members, threads=os.cpu_count() or 2, name="colabkit-check")
    return [member.path for member, bad in zip(members, found, strict=True) if bad]


def is_copy_of(
    folder: Path, manifest: DatasetManifest, *, count: Callable[..., None] | None = None
) -> bool:
    """Whether a folder holds just what was published elsewhere, by reading all of it."""
    members = manifest.members()
    return not foreign_files(folder, members) and not damaged_members(folder, members, count=count)


def foreign_files(folder: Path, members: Sequence[Member]) -> list[str]:
    """Returns the files that were not published here, or have another size by now."""
    known = {member.path: member.nbytes for member in members}
    return [path for path, nbytes in walk_sizes(folder) if known.get(path) != nbytes]


def folder_times(folder: Path) -> dict[str, int]:
    """Returns the time of change in ns of a folder and of each below it, by path."""
    times = {"": os.lstat(folder).st_mtime_ns}
    for path, entry in _walk(folder):
        if entry.is_dir(follow_symlinks=False):
            times[path] = entry.stat(follow_symlinks=False).st_mtime_ns
    return times


def walk_sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yields (path with slashes, size) of every file in a folder; links are none."""
    for path, entry in _walk(folder):
        if not entry.is_dir(follow_symlinks=False) and not entry.is_symlink():
            yield path, entry.stat(follow_symlinks=False).st_size


def measure(path: Path) -> tuple[int, int]:
    """Returns a file's size and CRC-32 by reading it."""
    nbytes = crc32 = 0
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        while piece := os.read(descriptor, _READ_BYTES):
            nbytes, crc32 = nbytes + len(piece), zlib.crc32(piece, crc32)
    finally:
        os.close(descriptor)
    return nbytes, crc32


def parallel(
    work: Callable[[Item], Result], items: Sequence[Item], *, threads: int, name: str
) -> list[Result]:
    """Returns what ``work`` gives for each item, in order, from several threads."""
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    if len(batches) <= 1:
        return [work(item) for item in items]
    with Pool(threads, name) as pool:
        done = pool.map(lambda batch: [work(item) for item in batch], batches)
        return list(itertools.chain.from_iterable(done))


def _times_equal(folder: Path, times: Mapping[str, int]) -> bool:
    base = f"{folder}/"
    try:
        return all(os.lstat(base + path).st_mtime_ns == time for path, time in times.items())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_empty_folder(path: Path) -> bool:
    if not _is_folder(path):
        return False
    with os.scandir(path) as entries:
        return next(entries, None) is None


def _walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                path = f"{inside}/{entry.name}" if inside else entry.name
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
