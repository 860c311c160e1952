"""Web servers that give a file only as a whole: it is downloaded once and read from the disk."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from colabkit.datasets.reading.source import FileSource, Source
from colabkit.datasets.reading.urls import as_os_error, gives_parts
from colabkit.datasets.transfer import Phase, Retry, Watch

_PIECE_BYTES = 1 << 20


class Downloads:
    """Files of web servers, downloaded where they cannot be read in parts.

    Args:
        watch: Is told every byte.
        retry: Called when a server does not answer.
    """

    def __init__(self, *, watch: Watch, retry: Retry) -> None:
        self._watch = watch
        self._retry = retry
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._paths: dict[str, Path] = {}

    def source(self, url: str, opened: Source | None) -> Source | None:
        """Returns a source that can be read in parts, None when the URL's own can.

        Args:
            url: What to read.
            opened: The URL's own source, None where its server does not even tell its size.
        """
        if url not in self._paths:
            if opened is not None and self._gives_parts(url, opened):
                return None
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="colabkit-download-")
            path = Path(self._folder.name) / f"{len(self._paths)}"
            self._download(url, path)
            self._paths[url] = path
        source = FileSource(str(self._paths[url]))
        source.name = url  # errors name what the user passed
        return source

    def close(self) -> None:
        """Deletes what was downloaded."""
        self._paths.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _gives_parts(self, url: str, opened: Source) -> bool:
        while opened.nbytes > 1:
            try:
                return gives_parts(url)
            except OSError as error:
                self._retry(error)
        return True

    def _download(self, url: str, path: Path) -> None:
        fsspec: Any = importlib.import_module("fsspec")
        while True:
            self._watch.begin(Phase.DOWNLOADING)
            try:
                with fsspec.open(url, "rb", block_size=0) as remote, path.open("wb") as local:
                    while piece := _piece(remote, url):
                        local.write(piece)
                        self._watch.add(nbytes=len(piece))
            except OSError as error:
                self._retry(error)
            else:
                return


def _piece(remote: Any, url: str) -> bytes:
    try:
        return bytes(remote.read(_PIECE_BYTES))
    except Exception as error:
        raise as_os_error(error, url) from error
