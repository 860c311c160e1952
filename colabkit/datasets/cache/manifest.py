"""What was unpacked: a manifest of every file, and of the folder as it was published."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

_MAGIC = b"colabkit dataset 1 "
_CHUNK = 1 << 12


class Member(NamedTuple):
    """A file of a dataset.

    Attributes:
        path: Its path inside the dataset, with slashes.
        nbytes: Its size.
        crc32: CRC of its content, None where nobody read it.
        mtime_ns: Its own time of change, where the dataset is a copied folder.
    """

    path: str
    nbytes: int
    crc32: int | None = None
    mtime_ns: int | None = None


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
class Manifest:
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


def encode(manifest: Manifest) -> bytes:
    """Returns a manifest's bytes: a hash of all that follows, then one line a part."""
    head = json.dumps(dataclasses.asdict(manifest.header), separators=(",", ":")).encode()
    folders = json.dumps(dict(manifest.folders), separators=(",", ":")).encode()
    body = b"\n".join((head, folders, manifest.packed_members))
    return _MAGIC + xxhash.xxh3_128_hexdigest(body).encode() + b"\n" + body


def decode(data: bytes) -> Manifest | None:
    """Returns the manifest in some bytes, None when they are not whole."""
    first, _, body = data.partition(b"\n")
    if first != _MAGIC + xxhash.xxh3_128_hexdigest(body).encode():
        return None
    head, folders, members = body.split(b"\n", 2)
    fields: dict[str, Any] = json.loads(head)
    if fields["selection"] is not None:
        fields["selection"] = tuple(fields["selection"])
    return Manifest(Header(**fields), json.loads(folders), members)


def read_manifest(path: Path) -> Manifest | None:
    """Returns the manifest in a file, None when there is none or it is not whole."""
    try:
        return decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
