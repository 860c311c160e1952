"""Brings the files of a version to this machine's disk; what appears there is whole."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import xxhash

from colabkit.errors import ColabKitError, DiskFullError, StorageError
from colabkit.keeping.bundles import Bundle
from colabkit.keeping.held import Held
from colabkit.keeping.scanning import Stamp
from colabkit.keeping.store import VersionStore
from colabkit.keeping.units import folder_of
from colabkit.keeping.version import Content, Version, damaged

_ASIDE = ".colabkit-tmp-"
_UNPACKED_MAX = 4


class Fetcher:
    """Reads one version.

    Args:
        folder: The kept folder.
        store: Where the version lies.
        version: The version.

    Raises:
        CheckpointCorruptError: A bundle of small files is damaged.
        StorageError: It cannot be read.
    """

    def __init__(self, folder: Path, store: VersionStore, version: Version) -> None:
        self._folder, self._store, self._version = folder, store, version
        self._bundles = {
            name: Bundle(name, store.read_whole(version, name)) for name in version.bundles
        }
        self._unpacked: dict[str, dict[str, bytes]] = {}

    @property
    def held(self) -> Held:
        """What the version holds."""
        contents: dict[str, Content] = {}
        for bundle in self._bundles.values():
            contents |= bundle.contents
        contents = {p: c for p, c in contents.items() if p not in self._version.gone}
        contents |= self._version.files
        sizes = {
            name: {path: content.nbytes for path, content in bundle.contents.items()}
            for name, bundle in self._bundles.items()
        }
        return Held(contents, self._version.links, sizes, self._version.blobs)

    def fetch(self, name: str, contents: Mapping[str, Content]) -> dict[str, Stamp]:
        """Brings a unit, a folder at once; returns the stamps of its files.

        Raises:
            CheckpointCorruptError: Its bytes are not those that were kept.
            StorageError: They cannot be read.
        """
        if folder_of(name, contents):
            self._fetch(name, contents)
        else:
            for path, content in contents.items():
                self._fetch(path, {path: content})
        return {path: Stamp.of((self._folder / path).stat()) for path in contents}

    def _fetch(self, name: str, contents: Mapping[str, Content]) -> None:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.parent / f"{_ASIDE}{uuid.uuid4().hex}"
        try:
            for path, content in contents.items():
                place = aside if path == name else aside / path.removeprefix(f"{name}/")
                place.parent.mkdir(parents=True, exist_ok=True)
                self._fetch_file(path, content, place)
            aside.rename(target)
        except BaseException as error:
            remove(aside)
            if isinstance(error, OSError) and not isinstance(error, ColabKitError):
                raise _not_brought(target, error) from error
            raise

    def _fetch_file(self, path: str, content: Content, place: Path) -> None:
        digest = xxhash.xxh3_128()
        with place.open("xb") as file:
            for piece in self._pieces(path, content):
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != content.hash:
            raise damaged(path, "its bytes are not those that were kept")
        place.chmod(content.mode or 0o644)
        os.utime(place, ns=(content.mtime_ns, content.mtime_ns))

    def _pieces(self, path: str, content: Content) -> Iterator[bytes]:
        if content.is_bundled:
            yield self._small_files(content.blobs[0])[path]
            return
        for piece in self._store.read(self._version, content.blobs):
            yield piece.tobytes()

    def _small_files(self, bundle: str) -> dict[str, bytes]:
        if bundle not in self._unpacked:
            # Files come bundle by bundle, by and large: not all are in memory at once.
            for name in list(self._unpacked)[: 1 - _UNPACKED_MAX]:
                del self._unpacked[name]
            self._unpacked[bundle] = self._bundles[bundle].unpack()
        return self._unpacked[bundle]


def _not_brought(target: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"{target} could not be brought here: this machine's disk is full."
        hint = (
            "Delete what you no longer need on it, and run this again: what is here already is"
            " not copied again."
        )
        return DiskFullError(message, path=target, hint=hint)
    message = f"{target} could not be written: {error.strerror}."
    return StorageError(message, path=target, operation="write")


def sweep(folder: Path) -> None:
    """Removes what a call that was killed had brought half."""
    for above, folders, files in os.walk(folder):
        for name in [each for each in folders if each.startswith(_ASIDE)]:
            folders.remove(name)
            remove(Path(above, name))
        for name in files:
            if name.startswith(_ASIDE):
                remove(Path(above, name))


def remove(path: Path) -> None:
    """Removes a file or a folder, where it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
