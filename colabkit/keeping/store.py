"""The versions of a kept folder on a volume: listed, read, written, confirmed, pruned."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import xxhash

from colabkit.checkpoint import Name
from colabkit.errors import CheckpointCorruptError, StorageError
from colabkit.keeping.version import Version, damaged
from colabkit.storage import Bytes, Uploading, Volume, hash_of

_VERSIONS, _FILES, _LEASE, _WHOLE = "versions", "files", "lease.json", "whole.txt"
_OURS = re.compile(r".*\.(g\d{4,}-\d{8,}-[0-9a-f]{8})-\d+(\.\w{1,12})?")
_PLAIN = re.compile(r"[^A-Za-z0-9_.~ -]")
_STEM_CHARS = 80
_READ_BYTES = 8 << 20


class VersionStore:
    """The versions on one volume.

    Args:
        volume: Where they lie.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self._versions: dict[Name, Version] = {}
        self._is_noted = False

    # Reading.

    def names(self) -> list[Name]:
        """Returns the names of the versions there, newest first."""
        stems = (
            n.removesuffix(".json") for n in self.volume.list(_VERSIONS) if n.endswith(".json")
        )
        return sorted((n for n in map(Name.parse, stems) if n is not None), reverse=True)

    def version(self, name: Name) -> Version:
        """Returns a version.

        Raises:
            CheckpointCorruptError: Its manifest is not what was written.
        """
        if name not in self._versions:
            path = _manifest(name)
            version = Version.from_bytes(self.volume.read(path).tobytes(), path)
            if version.name != name:
                raise damaged(path, f"it calls itself {version.name}")
            self._versions[name] = version
        return self._versions[name]

    def lacks(self, version: Version) -> str:
        """Returns what of a version is not there in its full size, "" for nothing."""
        there = self.volume.list(_FILES)
        for name, blob in version.blobs.items():
            if there.get(name) != blob.nbytes:
                found = f"{there[name]:,} bytes" if name in there else "missing"
                return f"{name}: {found} instead of {blob.nbytes:,} bytes"
        return ""

    def read(self, version: Version, names: Sequence[str]) -> Iterator[Bytes]:
        """Yields the bytes of blobs one after the other, and checks each at its end.

        Raises:
            CheckpointCorruptError: Their bytes are not those that were written.
            StorageError: They cannot be read.
        """
        for name in names:
            digest = xxhash.xxh3_128()
            for piece in self._pieces(name):
                digest.update(piece.data)
                yield piece
            if digest.hexdigest() != version.blobs[name].hash:
                raise damaged(name, "its bytes are not those that were written")

    def read_whole(self, version: Version, name: str) -> Bytes:
        """Returns the bytes of one blob, known to be those that were written.

        Raises:
            CheckpointCorruptError: They are not.
        """
        data = self.volume.read(_file(name))
        if hash_of(data) != version.blobs[name].hash:
            raise damaged(name, "its bytes are not those that were written")
        return data

    def _pieces(self, name: str) -> Iterator[Bytes]:
        """Yields a blob in pieces: one file may be larger than this machine's memory."""
        if self.volume.root is None:
            yield self.volume.read(_file(name))
            return
        path = self.volume.root / _file(name)
        try:
            with path.open("rb", buffering=0) as file:
                while data := file.read(_READ_BYTES):
                    yield np.frombuffer(data, np.uint8)
        except OSError as error:
            message = f"Could not read {path}: {error.strerror}."
            raise StorageError(message, path=path, operation="read", may_pass=True) from error

    def last_sign_s(self) -> float:
        """Returns when a session that kept a folder here gave its last sign, 0 for never."""
        with contextlib.suppress(StorageError, ValueError, TypeError, KeyError):
            return float(json.loads(self.volume.read(_LEASE).tobytes())["heartbeat"])
        return 0.0

    # Writing.

    def write_blob(self, name: str, pieces: Iterable[Bytes]) -> None:
        """Writes a file that never changes."""
        self.volume.write(_file(name), pieces)

    def blobs_there(self) -> Mapping[str, int]:
        """Returns the names and sizes of the blobs there."""
        return self.volume.list(_FILES)

    @property
    def was_whole(self) -> bool:
        """Whether a version was ever seen uploaded here."""
        return _WHOLE in self.volume.list(_VERSIONS)

    def note_whole(self) -> None:
        """Notes that a version is uploaded: from now on one that is not whole is damaged."""
        if not self._is_noted:
            if not self.was_whole:
                text = b"A version of this folder was seen whole here.\n"
                self.volume.write(f"{_VERSIONS}/{_WHOLE}", [np.frombuffer(text, np.uint8)])
            self._is_noted = True

    def commit(self, version: Version, check: Callable[[], None]) -> int:
        """Writes the manifest of a version whose blobs are there; returns its size in bytes.

        Args:
            version: The version.
            check: Called right before; raises when this session may not write.
        """
        check()
        content = version.to_bytes()
        self.volume.write(_manifest(version.name), [content])
        self._versions[version.name] = version
        return len(content)

    def is_confirmed(self, version: Version, known: Collection[str]) -> bool | None:
        """Returns whether a version is uploaded, None where the volume does not say.

        Args:
            version: The version.
            known: Blobs already seen to be uploaded.
        """
        if not isinstance(self.volume, Uploading):
            return True
        blobs = [_file(name) for name in version.blobs if name not in known]
        return self.volume.confirmed([*blobs, _manifest(version.name)])

    def holds(self, version: Version) -> bool:
        """Whether all files of a version are there and have their sizes."""
        there = self.volume.list(_VERSIONS)
        return bool(there.get(f"{version.name}.json")) and not self.lacks(version)

    def prune(self, keep: Collection[Name]) -> None:
        """Removes the versions before those that are kept, then what only they named.

        Args:
            keep: Versions known to be whole.
        """
        oldest = min(keep)
        names = self.names()
        going = [name for name in names if name < oldest]
        if going:
            self.volume.delete([_manifest(name) for name in going])
            for name in going:
                self._versions.pop(name, None)
        self._sweep([name for name in names if name not in going], max(keep))

    def _sweep(self, staying: Iterable[Name], newest: Name) -> None:
        """Removes blobs that no version names and none can come to name any more."""
        there = self.volume.list(_FILES)
        used: set[str] = set()
        for name in staying:
            try:
                used |= self.version(name).blobs.keys()
            except CheckpointCorruptError:
                return  # what it names is not known, and may be whole
        dead = [blob for blob in there if blob not in used and _can_go(blob, newest)]
        if dead:
            self.volume.delete([_file(blob) for blob in sorted(dead)])


def blob_name(path: str, version: Name, number: int) -> str:
    """Returns a name that is used once, and tells a person what it holds.

    Example:
        >>> blob_name("weights/last.pt", Name(1, 3, 12, "0123abcd"), 0)
        'weights~last.g0003-00000012-0123abcd-0.pt'
    """
    stem, dot, suffix = path.replace("/", "~").rpartition(".")
    if not stem or len(suffix) > 12 or not suffix.isalnum() or not suffix.isascii():
        stem, dot, suffix = path.replace("/", "~"), "", ""
    stem = _PLAIN.sub("_", stem)[-_STEM_CHARS:]
    session = str(version).partition("-")[2]
    return f"{stem}.{session}-{number}{dot}{suffix}"


def _can_go(blob: str, newest: Name) -> bool:
    found = _OURS.fullmatch(blob)
    name = Name.parse(f"a01-{found[1]}") if found else None
    if name is None:
        return False
    if (name.generation, name.owner) == (newest.generation, newest.owner):
        return name.sequence <= newest.sequence
    return name.generation < newest.generation


def _manifest(name: Name) -> str:
    return f"{_VERSIONS}/{name}.json"


def _file(name: str) -> str:
    return f"{_FILES}/{name}"
