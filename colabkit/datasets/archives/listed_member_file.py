"""A file that comes piece by piece, held to what the archive declares of it."""

from __future__ import annotations

import os

from colabkit.datasets.archives.members import ArchiveFile, UnpackedTable
from colabkit.datasets.reading.transfer_progress import Counter
from colabkit.datasets.writing.damage import corrupt
from colabkit.datasets.writing.small_files import crc32
from colabkit.datasets.writing.tree import Tree


class MemberFile:
    """One member on its way to the disk: ``write``, then ``finish``; ``close`` gives it up."""

    def __init__(
        self,
        tree: Tree,
        file: ArchiveFile,
        counter: Counter,
        manifest: UnpackedTable,
        time_s: float,
    ) -> None:
        self._tree = tree
        self._file = file
        self._counter = counter
        self._manifest = manifest
        self._time_s = time_s
        self._nbytes = 0
        self._crc = 0
        self._descriptor: int | None = tree.create(file.path, file.mode)

    @property
    def is_whole(self) -> bool:
        """Whether as much has come as was declared."""
        return self._nbytes == self._file.nbytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Appends a piece; raises where it is more than was declared."""
        path, declared = self._file.path, self._file.nbytes
        self._nbytes += len(data)
        if self._nbytes > declared:
            raise corrupt(path, f"unpacks to more than the {declared:,} bytes it declares")
        view = memoryview(data)
        self._crc = crc32(view, self._crc)
        if self._descriptor is not None:
            self._tree.write(self._descriptor, view, path)
        self._counter.bytes_written += len(view)

    def finish(self) -> None:
        """Closes the file and checks it."""
        if self._descriptor is not None:
            self._tree.date(self._descriptor, self._time_s)
        self.close()
        crc = self._file.crc
        if not self.is_whole:
            why = f"unpacks to {self._nbytes:,} bytes instead of {self._file.nbytes:,}"
            raise corrupt(self._file.path, why)
        if crc is not None and crc != self._crc:
            raise corrupt(self._file.path, "has another CRC-32 than the archive says")
        self._counter.files_done += 1
        self._manifest.add(self._file.path, self._nbytes, self._crc)

    def close(self) -> None:
        """Closes the file as it is."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
