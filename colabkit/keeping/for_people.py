"""Names that a person finds on the volume; they never decide what is brought back."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from colabkit.errors import StorageError
from colabkit.keeping.version import Content, Version
from colabkit.storage import Volume, hash_of

_logger = logging.getLogger(__name__)
_FOLDER, _CONTENTS = "latest", "CONTENTS.txt"
# Small files of which there are few are what people look at: tables, logs, settings.
_FILES_MAX = 200
_ROWS_MAX = 500


class ForPeople:
    """Small files under their own names, and a table that tells where the large ones are.

    Args:
        folder: The kept folder.
        volume: Where it is kept.
    """

    def __init__(self, folder: Path, volume: Volume) -> None:
        self._folder, self._volume = folder, volume
        self._shown: dict[str, str] = {}

    def show(self, version: Version, contents: Mapping[str, Content]) -> None:
        """Writes them for a version that is known to be uploaded, as far as the volume takes them.

        A name that it refuses is no reason to keep less.
        """
        small = {path: each for path, each in contents.items() if each.is_bundled}
        if len(small) > _FILES_MAX:
            small = {}
        for path, content in small.items():
            if self._shown.get(path) != content.hash:
                data = self._read(path, content)
                if data is not None:
                    self._write(f"{_FOLDER}/{path}", data)
                    self._shown[path] = content.hash
        gone = [path for path in self._shown if path not in small]
        if gone:
            with _tolerance():
                self._volume.delete([f"{_FOLDER}/{path}" for path in gone])
            for path in gone:
                del self._shown[path]
        self._write(_CONTENTS, contents_text(version, contents))

    def _write(self, name: str, data: bytes) -> None:
        with _tolerance():
            self._volume.write(name, [np.frombuffer(data, np.uint8)])

    def _read(self, path: str, content: Content) -> bytes | None:
        try:
            data = (self._folder / path).read_bytes()
        except OSError:
            return None
        return data if hash_of(data) == content.hash else None


@contextlib.contextmanager
def _tolerance() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        _logger.info("A name for people could not be made.", exc_info=error)


def contents_text(version: Version, contents: Mapping[str, Content]) -> bytes:
    """Returns a table of what a version holds and where."""
    moment = datetime.datetime.fromtimestamp(version.saved_s, datetime.UTC)
    lines = [
        f"Kept by colabkit, as it was on {moment:%Y-%m-%d at %H:%M:%S} UTC.",
        f"{version.count:,} files, {version.nbytes:,} bytes.",
        "Leave the folders files and versions as they are: colabkit.keep() brings them back.",
        "",
    ]
    for path, content in sorted(contents.items())[:_ROWS_MAX]:
        places = ", ".join(f"files/{blob}" for blob in content.blobs)
        lines.append(f"{path}  ({content.nbytes:,} bytes)  in {places}")
    more = len(contents) - _ROWS_MAX
    return "\n".join([*lines, *([f"... and {more:,} more"] if more > 0 else []), ""]).encode()
