"""A version: what a kept folder held at one moment. Its manifest alone makes it exist."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from colabkit.checkpoint import Name
from colabkit.errors import CheckpointCorruptError
from colabkit.storage import Bytes, hash_of

FORMAT = 2
# Format 1 has zips for bundles, and notes no revisions.
_READABLE = (1, FORMAT)
_PREFIX, _MIDDLE = b'{"xxh3_128":"', b'","version":'
_HASH_CHARS = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """A file on the volume, which never changes.

    Attributes:
        nbytes: Its size.
        hash: The XXH3 128-bit hash of its bytes.
    """

    nbytes: int
    hash: str


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What a kept file holds.

    Attributes:
        nbytes: Its size.
        mtime_ns: When it was written last.
        mode: Its permissions.
        hash: The XXH3 128-bit hash of its bytes.
        blobs: Where it lies on the volume, part after part; or the one bundle it is in.
        is_bundled: Whether it shares a bundle with other small files.
        revision: Which version of the folder it came with, counted from 1: no clock tells so
            surely what is newer. 0 where that was not noted.
    """

    nbytes: int
    mtime_ns: int
    mode: int
    hash: str
    blobs: tuple[str, ...] = ()
    is_bundled: bool = False
    revision: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """What a kept folder held.

    Attributes:
        name: The largest is the newest.
        saved_s: When it was looked at, in seconds since the epoch.
        files: The files that lie on the volume by themselves, by their path in the folder.
        bundles: The bundles of small files, each path being in the last that has it.
        gone: What is in a bundle and was not in the folder.
        links: Where symbolic links lead.
        blobs: What lies on the volume, by name.
        checkpoint: The newest checkpoint in it, "" for none.
        count: How many files it has.
        nbytes: Their size.
    """

    name: Name
    saved_s: float
    files: Mapping[str, Content]
    bundles: tuple[str, ...]
    gone: frozenset[str]
    links: Mapping[str, str]
    blobs: Mapping[str, Blob]
    checkpoint: str
    count: int
    nbytes: int

    def to_bytes(self) -> Bytes:
        """Returns the manifest."""
        value = {
            "format": FORMAT,
            "name": str(self.name),
            "saved_s": self.saved_s,
            "checkpoint": self.checkpoint,
            "count": self.count,
            "nbytes": self.nbytes,
            "blobs": {name: [blob.nbytes, blob.hash] for name, blob in self.blobs.items()},
            "files": {path: row_of(each) for path, each in self.files.items()},
            "bundles": list(self.bundles),
            "gone": sorted(self.gone),
            "links": dict(self.links),
        }
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        data = b"".join([_PREFIX, hash_of(body).encode(), _MIDDLE, body, b"}"])
        return np.frombuffer(data, np.uint8)

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> Version:
        """Reads a manifest strictly.

        Raises:
            CheckpointCorruptError: A byte differs, or something in it is impossible.
        """
        start = len(_PREFIX) + _HASH_CHARS + len(_MIDDLE)
        body = data[start:-1]
        told = data[len(_PREFIX) : len(_PREFIX) + _HASH_CHARS]
        if not data.startswith(_PREFIX) or told != hash_of(body).encode():
            raise damaged(path, "its bytes are not those that were written")
        try:
            return _parse(json.loads(body), path)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            if isinstance(error, CheckpointCorruptError):
                raise
            raise damaged(path, f"an unknown form ({type(error).__name__})") from error


def _parse(raw: dict[str, Any], path: str) -> Version:
    if raw["format"] not in _READABLE:
        raise damaged(path, f"format {raw['format']!r}, this colabkit reads up to {FORMAT}")
    name = Name.parse(raw["name"])
    if name is None:
        raise damaged(path, f"the name {raw['name']!r}")
    blobs = {key: Blob(int(size), str(told)) for key, (size, told) in raw["blobs"].items()}
    files = {each: content_of(row) for each, row in raw["files"].items()}
    wanted = {blob for each in files.values() for blob in each.blobs} | set(raw["bundles"])
    if not wanted <= blobs.keys():
        raise damaged(path, "a file whose bytes are nowhere")
    for each in (*files, *raw["links"]):
        require_inside(each, path)
    return Version(
        name=name,
        saved_s=float(raw["saved_s"]),
        files=files,
        bundles=tuple(raw["bundles"]),
        gone=frozenset(raw["gone"]),
        links=dict(raw["links"]),
        blobs=blobs,
        checkpoint=str(raw["checkpoint"]),
        count=int(raw["count"]),
        nbytes=int(raw["nbytes"]),
    )


def row_of(content: Content) -> list[Any]:
    """Returns a file's content for JSON."""
    mine = (content.nbytes, content.mtime_ns, content.mode, content.hash, content.revision)
    return [*mine, *content.blobs] if not content.is_bundled else [*mine]


def content_of(row: list[Any]) -> Content:
    """Returns a file's content from JSON."""
    nbytes, mtime_ns, mode, told, *rest = row
    revision = rest.pop(0) if rest and isinstance(rest[0], int) else 0
    mine = (int(nbytes), int(mtime_ns), int(mode), str(told))
    return Content(*mine, tuple(map(str, rest)), revision=revision)


def require_inside(name: str, path: str) -> None:
    """Raises CheckpointCorruptError for a path that leads out of the kept folder."""
    parts = name.split("/")
    if not name or name.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        raise damaged(path, f"the path {name!r}")


def damaged(path: str, reason: str) -> CheckpointCorruptError:
    """Returns the error for a damaged file of a version."""
    return CheckpointCorruptError(f"{path} is damaged: {reason}.", path=path, reason=reason)
