"""Small files of a stream, written in batches beside the thread that cuts them out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from colabkit.datasets.reading.transfer_progress import Counter
from colabkit.datasets.reading.workers import Crew, Pipe
from colabkit.datasets.writing.small_files import STORED, Content, Item
from colabkit.datasets.writing.tree import Tree
from colabkit.datasets.writing.writer_process import WriterProcess

SMALL_BYTES = 256 << 10
# One system call gathers no more than 1024 pieces.
_PIECES_MAX = 900
_BATCH_BYTES = 1 << 20
_PIPE_BYTES = 16 << 20
# An archive that had so many small files will have more.
_START_AFTER = 500


@dataclass(slots=True)
class _Batch:
    """Files and their contents, one after the other."""

    items: list[Item] = field(default_factory=list)
    pieces: list[Content] = field(default_factory=list)
    nbytes: int = 0


class FileBatches:
    """Takes small files; after some hundreds, processes write them."""

    def __init__(self, tree: Tree, counter: Counter, crew: Crew) -> None:
        self._tree = tree
        self._counter = counter
        self._crew = crew
        self._seen = 0
        self._batch = _Batch()
        self._pipe: Pipe[_Batch] | None = None
        self._written = crew.condition()
        self._waiting = 0

    def put(
        self,
        path: str,
        pieces: Sequence[Content],
        nbytes: int,
        crc: int,
        mode: int,
        time_s: float,
    ) -> None:
        """Takes a file; its pieces may be kept for a while."""
        self._seen += 1
        if self._pipe is None:
            content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._tree.put(path, content, mode, time_s)
            with self._crew.lock:
                self._counter.add_done(nbytes)
            if self._seen == _START_AFTER:
                self._start()
            return
        batch = self._batch
        begin = batch.nbytes
        batch.nbytes += nbytes
        batch.items.append((path, begin, batch.nbytes, STORED, nbytes, crc, mode, time_s))
        batch.pieces += pieces
        if batch.nbytes >= _BATCH_BYTES or len(batch.pieces) >= _PIECES_MAX:
            self._hand_on(self._pipe)

    def close(self) -> None:
        """Hands on what is left; to be called when the last file has come."""
        if self._pipe is not None:
            self._hand_on(self._pipe)
            self._pipe.close()

    def settle(self) -> None:
        """Waits until every file that was taken is written."""
        if self._pipe is not None:
            self._hand_on(self._pipe)
            with self._crew.lock:
                self._crew.wait_for(self._written, lambda: not self._waiting)

    def _hand_on(self, pipe: Pipe[_Batch]) -> None:
        batch, self._batch = self._batch, _Batch()
        with self._crew.lock:
            self._waiting += 1
        pipe.put(batch, batch.nbytes)

    def _start(self) -> None:
        # Cutting takes a core or two, but on a disk a writer waits more than it works.
        count = os.cpu_count() or 1
        self._pipe = Pipe(self._crew, _PIPE_BYTES)
        for number in range(count):
            work = partial(self._write, self._pipe, WriterProcess(self._tree, wanted=True))
            self._crew.start(f"write-{number}", work, awaited=True)

    def _write(self, pipe: Pipe[_Batch], process: WriterProcess) -> None:
        try:
            for batch in pipe:
                if process.put(batch.items, batch.pieces) is None:
                    self._write_here(batch)
                with self._crew.lock:
                    self._counter.bytes_written += batch.nbytes
                    self._counter.files_done += len(batch.items)
                    self._waiting -= 1
                    self._written.notify_all()
        finally:
            process.close()

    def _write_here(self, batch: _Batch) -> None:
        data = memoryview(b"".join(batch.pieces))
        for path, begin, end, _, _, _, mode, time_s in batch.items:
            self._crew.check()
            self._tree.put(path, data[begin:end], mode, time_s)
