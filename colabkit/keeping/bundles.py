"""Small files in one zip: a slow volume takes one large file sooner than thousands."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Mapping

import numpy as np

from colabkit.keeping.version import Content, content_of, damaged, require_inside, row_of
from colabkit.storage import Bytes, hash_of

_INDEX = "colabkit.json"
_FIRST_YEAR, _LAST_YEAR = 1980, 2107


def pack_bundle(files: Mapping[str, tuple[Content, bytes]]) -> Bytes:
    """Returns a zip of small files; anybody can open it.

    Args:
        files: What each holds, by its path in the kept folder.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bundle:
        for path, (content, data) in files.items():
            bundle.writestr(_info(path, content), data)
        index = {path: row_of(content) for path, (content, _) in files.items()}
        bundle.comment = b"small files of a folder kept by colabkit"
        bundle.writestr(_INDEX_INFO, json.dumps(index, ensure_ascii=False))
    return np.frombuffer(buffer.getbuffer(), np.uint8)


# Above the kept folder, where none of its own files can be.
_INDEX_INFO = zipfile.ZipInfo(f".colabkit-tmp-index/{_INDEX}")
_INDEX_INFO.compress_type = zipfile.ZIP_DEFLATED


def _info(path: str, content: Content) -> zipfile.ZipInfo:
    moment = time.gmtime(content.mtime_ns // 1_000_000_000)[:6]
    info = zipfile.ZipInfo(path)
    if _FIRST_YEAR <= moment[0] <= _LAST_YEAR:
        info.date_time = moment
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = content.mode << 16
    return info


class Bundle:
    """A bundle that was read.

    Args:
        name: Its name on the volume.
        data: Its bytes, known to be those that were written.

    Raises:
        CheckpointCorruptError: It is no bundle.
    """

    def __init__(self, name: str, data: Bytes) -> None:
        self.name = name
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data.data))
            index = json.loads(self._zip.read(_INDEX_INFO.filename))
            self.contents = {path: _placed(content_of(row), name) for path, row in index.items()}
        except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
            raise damaged(name, f"no bundle ({type(error).__name__})") from error
        for path in self.contents:
            require_inside(path, name)

    def read(self, path: str) -> bytes:
        """Returns a file's bytes.

        Raises:
            CheckpointCorruptError: They are not those that were written.
        """
        data = self._zip.read(path)
        if hash_of(data) != self.contents[path].hash:
            raise damaged(self.name, f"{path} is not what was written")
        return data


def _placed(content: Content, bundle: str) -> Content:
    mine = (content.nbytes, content.mtime_ns, content.mode, content.hash)
    return Content(*mine, blobs=(bundle,), is_bundled=True)
