"""Writes a new version of a kept folder: what changed goes, what is the same is referred to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import numpy as np
import xxhash

from colabkit.checkpoint import Lease, Name
from colabkit.keeping.bundles import pack_bundle
from colabkit.keeping.held import Held
from colabkit.keeping.scanning import Stamp
from colabkit.keeping.staging import ChangedError, Taken
from colabkit.keeping.store import VersionStore, blob_name
from colabkit.keeping.version import Blob, Content, Version
from colabkit.storage import Bytes, hash_of

_BUNDLE_BYTES = 32 << 20
# Of a log that grows each version sends the new end, until there are too many of them.
_PARTS_MAX = 100
_SERVICE_BLOB_BYTES = 256 << 20  # a service is handed a whole blob in memory


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What is new since a version.

    Attributes:
        taken: Files that changed.
        gone: Paths that are not there any more.
        links: Where symbolic links lead now.
        saved_s: When the folder was looked at, in seconds since the epoch.
        named: Which checkpoints its small files name.
        refused: Why something was not taken that this machine has no room for, None otherwise.
    """

    taken: Mapping[str, Taken]
    gone: frozenset[str]
    links: Mapping[str, str]
    saved_s: float
    named: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    refused: OSError | None = None


class LostBlobsError(Exception):
    """Blobs that were written are not there any more.

    Attributes:
        names: Their names.
    """

    def __init__(self, names: Set[str]) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names = names


class Publisher:
    """Writes versions of one folder.

    Args:
        folder: The kept folder.
        store: Where versions go.
        lease: This session's claim on that place.
        whole: What folders that count as a whole are called.
    """

    def __init__(
        self, folder: Path, store: VersionStore, lease: Lease, whole: tuple[str, ...]
    ) -> None:
        self._folder = folder
        self._store = store
        self._lease = lease
        self._whole = whole
        self._sequence = 0
        self._sent: dict[str, tuple[str, ...]] = {}
        self._sent_blobs: dict[str, Blob] = {}
        self.sent_nbytes = 0

    def publish(
        self, held: Held, change: Change, stamps: Mapping[str, Stamp]
    ) -> tuple[Version, Held] | None:
        """Writes what changed, then the manifest; None where every byte is as it was.

        Args:
            held: What the version before holds.
            change: What is new.
            stamps: The stamps that files had when they were taken.

        Raises:
            ChangedError: A file was written over while it was sent.
            LostBlobsError: What the version before refers to is not there any more.
            LeaseLostError: Another session keeps its folder there now.
            StorageError: The volume does not take it.
        """
        if _is_nothing_new(held, change):
            return None
        self._sequence += 1
        name = Name(1, self._lease.generation, self._sequence, self._lease.owner)
        numbers = itertools.count()
        contents = {p: c for p, c in held.contents.items() if p not in change.gone}
        blobs, bundles = dict(held.blobs), dict(held.bundles)
        there = dict(self._store.blobs_there())
        small: dict[str, tuple[Content, bytes]] = {}
        for path, taken in change.taken.items():
            content = _content(taken, held.revision + 1)
            contents[path] = content
            if taken.place is None:
                small[path] = (content, taken.data)
                continue
            sent = self._find(content, held, there)
            if sent is None:
                before = self._before(path, taken, held, there)
                sent = (*before, *self._send(path, taken, name, numbers, is_tail=bool(before)))
                there |= {each: self._blob(each, held).nbytes for each in sent}
                self._sent[taken.hash] = sent
            blobs |= {each: self._blob(each, held) for each in sent}
            contents[path] = dataclasses.replace(content, blobs=sent)
        changed = Held(contents, change.links, bundles, blobs).with_only_used()
        # Another machine may have removed what only its own older versions named.
        lost = {each for each, blob in changed.blobs.items() if there.get(each) != blob.nbytes}
        if lost:
            raise LostBlobsError(lost)
        for path in changed.to_repack() - small.keys():
            packed = self._again(path, contents[path], stamps)
            if packed is not None:
                small[path] = (contents[path], packed)
        for part in _in_parts(small):
            data = pack_bundle(part)
            bundle = blob_name("small-files.tgz", name, next(numbers))
            self._write(bundle, iter([data]), Blob(len(data), hash_of(data)))
            blobs[bundle] = self._sent_blobs[bundle]
            bundles[bundle] = {path: content.nbytes for path, (content, _) in part.items()}
            for path, (content, _) in part.items():
                contents[path] = dataclasses.replace(content, blobs=(bundle,), is_bundled=True)
        new = Held(contents, change.links, bundles, blobs).with_only_used()
        version = new.version(name, change.saved_s, self._whole)
        self.sent_nbytes += self._store.commit(version, self._lease.check)
        return version, new

    def _find(
        self, content: Content, held: Held, there: Mapping[str, int]
    ) -> tuple[str, ...] | None:
        """Returns where the same bytes lie already, under whatever name."""
        same = (
            c.blobs for c in held.contents.values() if c.hash == content.hash and not c.is_bundled
        )
        sent = next(same, None) or self._sent.get(content.hash)
        if sent is None or any(there.get(n) != self._blob(n, held).nbytes for n in sent):
            return None
        return sent

    def _blob(self, name: str, held: Held) -> Blob:
        return held.blobs.get(name) or self._sent_blobs[name]

    def _before(
        self, path: str, taken: Taken, held: Held, there: Mapping[str, int]
    ) -> tuple[str, ...]:
        """Returns where all but the tail of a file lies that only grew, () for any other."""
        blobs = held.contents[path].blobs if taken.tail is not None else ()
        is_there = all(there.get(name) == self._blob(name, held).nbytes for name in blobs)
        return blobs if is_there and len(blobs) < _PARTS_MAX else ()

    def _send(
        self, path: str, taken: Taken, name: Name, numbers: Iterator[int], *, is_tail: bool
    ) -> list[str]:
        """Sends a file, or its tail; returns where its bytes lie."""
        if not is_tail:
            taken = dataclasses.replace(taken, tail=None)
        nbytes, told = taken.stamp.nbytes, taken.hash
        if taken.tail is not None:
            nbytes, told = nbytes - taken.tail.start, taken.tail.hash
        sent = []
        if self._store.volume.root is not None:
            sent.append(blob_name(path, name, next(numbers)))
            self._write(sent[0], taken.pieces(), Blob(nbytes, told))
        else:
            for data in _in_blobs(taken.pieces()):
                sent.append(blob_name(path, name, next(numbers)))
                self._write(sent[-1], iter([data]), Blob(len(data), hash_of(data)))
        return sent

    def _write(self, blob: str, pieces: Iterator[Bytes], facts: Blob) -> None:
        self._store.write_blob(blob, pieces)
        self._sent_blobs[blob] = facts
        self.sent_nbytes += facts.nbytes

    def _again(self, path: str, content: Content, stamps: Mapping[str, Stamp]) -> bytes | None:
        """Returns the bytes of a file that is as it was sent, None where it is not any more."""
        try:
            with (self._folder / path).open("rb") as file:
                data = file.read(content.nbytes + 1)
        except OSError:
            return None
        is_same = xxhash.xxh3_128(data).hexdigest() == content.hash
        return data if is_same and path in stamps else None


def _is_nothing_new(held: Held, change: Change) -> bool:
    if change.gone & held.contents.keys() or dict(change.links) != dict(held.links):
        return False
    return all(
        path in held.contents and held.contents[path].hash == taken.hash
        for path, taken in change.taken.items()
    )


def _content(taken: Taken, revision: int) -> Content:
    stamp = taken.stamp
    return Content(stamp.nbytes, stamp.mtime_ns, taken.mode, taken.hash, revision=revision)


def _in_parts(
    small: Mapping[str, tuple[Content, bytes]],
) -> Iterator[dict[str, tuple[Content, bytes]]]:
    part: dict[str, tuple[Content, bytes]] = {}
    nbytes = 0
    for path, (content, data) in sorted(small.items()):
        if part and nbytes + len(data) > _BUNDLE_BYTES:
            yield part
            part, nbytes = {}, 0
        part[path] = (content, data)
        nbytes += len(data)
    if part:
        yield part


def _in_blobs(pieces: Iterator[Bytes]) -> Iterator[Bytes]:
    waiting: list[Bytes] = []
    nbytes = 0
    for piece in pieces:
        waiting.append(piece)
        nbytes += len(piece)
        if nbytes >= _SERVICE_BLOB_BYTES:
            yield np.concatenate(waiting)
            waiting, nbytes = [], 0
    if waiting:
        yield np.concatenate(waiting)


__all__ = ["Change", "ChangedError", "LostBlobsError", "Publisher"]
