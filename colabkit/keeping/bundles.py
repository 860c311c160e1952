"""Small files in one archive: a slow volume takes one large file sooner than thousands."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from colabkit.keeping.version import Content, content_of, damaged, require_inside, row_of
from colabkit.storage import Bytes, hash_of

# Above the kept folder, where none of its own files can be.
_INDEX = ".colabkit-tmp-index/colabkit.json"
_ZIP = b"PK"
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError)


def pack_bundle(files: Mapping[str, tuple[Content, bytes]]) -> Bytes:
    """Returns a compressed tar of small files; anybody can open it.

    A zip takes a tenth of a file of 1 kB for its two headers alone.

    Args:
        files: What each holds, by its path in the kept folder.
    """
    buffer = io.BytesIO()
    index = {path: row_of(content) for path, (content, _) in files.items()}
    rows = json.dumps(index, ensure_ascii=False, separators=(",", ":")).encode()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as bundle:
        _add(bundle, tarfile.TarInfo(_INDEX), rows)
        for path, (content, data) in files.items():
            info = tarfile.TarInfo(path)
            info.mode, info.mtime = content.mode, max(0, content.mtime_ns // 1_000_000_000)
            _add(bundle, info, data)
    return np.frombuffer(buffer.getbuffer(), np.uint8)


def _add(bundle: tarfile.TarFile, info: tarfile.TarInfo, data: bytes) -> None:
    info.size = len(data)
    bundle.addfile(info, io.BytesIO(data))


class Bundle:
    """A bundle that was read.

    Args:
        name: Its name on the volume.
        data: Its bytes, known to be those that were written.

    Attributes:
        contents: What each of its files holds, by its path in the kept folder.

    Raises:
        CheckpointCorruptError: It is no bundle.
    """

    def __init__(self, name: str, data: Bytes) -> None:
        self.name, self._data = name, data
        try:
            index = json.loads(_index_of(data))
            self.contents = {path: _placed(content_of(row), name) for path, row in index.items()}
        except (*_DAMAGED, KeyError, ValueError, TypeError) as error:
            raise damaged(name, f"no bundle ({type(error).__name__})") from error
        for path in self.contents:
            require_inside(path, name)

    def unpack(self) -> dict[str, bytes]:
        """Returns the bytes of its files, by their paths.

        Raises:
            CheckpointCorruptError: They are not those that were written.
        """
        try:
            found = _unzipped(self._data) if _is_zip(self._data) else _untarred(self._data)
        except _DAMAGED as error:
            raise damaged(self.name, f"no bundle ({type(error).__name__})") from error
        for path, content in self.contents.items():
            if path not in found or hash_of(found[path]) != content.hash:
                raise damaged(self.name, f"{path} is not what was written")
        return found


def _is_zip(data: Bytes) -> bool:
    return data[:2].tobytes() == _ZIP


def _index_of(data: Bytes) -> bytes:
    if _is_zip(data):
        with zipfile.ZipFile(io.BytesIO(data.data)) as bundle:
            return bundle.read(_INDEX)
    with tarfile.open(fileobj=io.BytesIO(data.data), mode="r:gz") as bundle:
        first = bundle.next()
        found = bundle.extractfile(first) if first is not None and first.name == _INDEX else None
        if found is None:
            raise KeyError(_INDEX)
        return found.read()


def _untarred(data: Bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data.data), mode="r:gz") as bundle:
        for info in bundle:
            file = bundle.extractfile(info)
            if file is not None:
                found[info.name] = file.read()
    return found


def _unzipped(data: Bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data.data)) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist()}


def _placed(content: Content, bundle: str) -> Content:
    return dataclasses.replace(content, blobs=(bundle,), is_bundled=True)
