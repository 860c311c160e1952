"""Processes that write small files, in batches, where threads would wait for the interpreter."""

from __future__ import annotations

import logging
import marshal
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from colabkit.datasets.reading.progress import Counter
from colabkit.datasets.reading.workers import BoundedQueue, WorkerGroup, WorkersStoppedError
from colabkit.datasets.writing import small_files
from colabkit.datasets.writing.small_files import (
    DOUBTFUL,
    STORED,
    Answer,
    Content,
    Head,
    Item,
    WriteRequest,
)
from colabkit.datasets.writing.tree import Tree
from colabkit.errors import ArchiveCorruptError

if TYPE_CHECKING:
    import subprocess

_log = logging.getLogger(__name__)
# Fewer are written sooner than a process has started.
FROM_FILES = 1500
_MEMORY_BYTES = 8 << 20
_STOP_TIMEOUT_S = 5.0
_PACKAGES = ("isal",)
# As a module it is compiled once for all; the folders where modules lie come last.
_PROGRAM = "import sys; sys.path += sys.argv[4:]; import small_files; small_files.main()"
SMALL_BYTES = 256 << 10
# One system call gathers no more than 1024 pieces.
_PIECES_MAX = 900
_BATCH_BYTES = 1 << 20
_QUEUE_BYTES = 16 << 20
# An archive that had so many small files will have more.
_START_AFTER = 500


class WriterProcess:
    """One process with shared memory; without it, or once it is lost, this thread does the work.

    Args:
        tree: Where to write.
        wanted: Whether to start a process at all.
        archive: The descriptor of an archive that it may read by itself.
    """

    def __init__(self, tree: Tree, *, wanted: bool, archive: int | None = None) -> None:
        self._tree = tree
        self._archive = archive
        self._memory: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        if wanted and sys.executable:
            self._start()

    def put(self, items: list[Item], pieces: Sequence[Content]) -> int | None:
        """Unpacks and writes files; returns how many bytes, None where no process could.

        Raises:
            ArchiveCorruptError: A file's bytes are damaged.
            StorageError: One cannot be written.
        """
        if sum(map(len, pieces)) > _MEMORY_BYTES:
            return None
        return self._done((0, 0, items, None), pieces)

    def put_from_archive(
        self, begin: int, end: int, items: list[Item], heads: list[Head]
    ) -> int | None:
        """Reads members of a zip between two offsets, and unpacks them as ``put`` does.

        Returns:
            How many bytes; None also where a header is not just what the directory says.
        """
        return None if self._archive is None else self._done((begin, end, items, heads), ())

    def _done(self, request: WriteRequest, pieces: Sequence[Content]) -> int | None:
        if self._process is None:
            return None
        try:
            answer = self._ask(request, pieces)
        except (OSError, EOFError, ValueError) as error:
            if self._closed:
                raise WorkersStoppedError from error
            _log.warning("A writing process was lost (%r); its work is done again here.", error)
            self._end()
            return None
        if answer == DOUBTFUL:
            return None
        nbytes, path, why, number = answer
        if why:
            raise ArchiveCorruptError.of(path, why)
        if path:
            raise self._tree.failure(path, OSError(number, os.strerror(number)))
        return nbytes

    def close(self) -> None:
        """Ends the process; when this returns, it writes nothing any more."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.kill()
            process.wait(_STOP_TIMEOUT_S)
            process.stdout.close()
            try:
                process.stdin.close()
            except OSError:
                _log.debug("What waited for a lost process is dropped.")
        memory, self._memory = self._memory, None
        if memory is not None:
            os.close(memory)

    def _start(self) -> None:
        import subprocess  # a small archive is written without a process

        from colabkit.runtime import start_program

        archive = -1
        try:
            self._memory = os.memfd_create("colabkit")
            os.ftruncate(self._memory, _MEMORY_BYTES)
            if self._archive is not None:
                archive = os.dup(self._archive)
            self._process = start_program(
                [
                    *(sys.executable, "-I", "-S", "-c", _PROGRAM, self._tree.prefix),
                    *(str(self._memory), str(archive)),
                    *(str(Path(small_files.__file__).parent), *_package_folders()),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[each for each in (self._memory, archive) if each >= 0],
                # A Ctrl-C is for the notebook alone.
                start_new_session=True,
            )
        except (AttributeError, OSError) as error:
            _log.info("Files are written by threads, as no process can be started (%r).", error)
            self._end()
        finally:
            if archive >= 0:
                os.close(archive)

    def _ask(self, request: WriteRequest, pieces: Sequence[Content]) -> Answer:
        process, memory = self._process, self._memory
        if process is None or memory is None or process.stdin is None or process.stdout is None:
            raise EOFError
        if pieces and os.pwritev(memory, pieces, 0) != sum(map(len, pieces)):
            raise EOFError
        packed = marshal.dumps(request)
        process.stdin.write(len(packed).to_bytes(8, "little") + packed)
        process.stdin.flush()
        head = process.stdout.read(8)
        body = process.stdout.read(int.from_bytes(head, "little"))
        answer: Answer = marshal.loads(body)  # noqa: S302 - from our child
        return answer


def _package_folders() -> list[str]:
    """Returns where the packages for faster inflating lie."""
    folders = set()
    for package in _PACKAGES:
        found = sys.modules.get(package)
        if found is not None and found.__spec__ is not None and found.__spec__.origin:
            is_folder = bool(found.__spec__.submodule_search_locations)
            folders.add(str(Path(found.__spec__.origin).parents[1 if is_folder else 0]))
    return sorted(folders)


@dataclass(slots=True)
class _Batch:
    """Files and their contents, one after the other."""

    items: list[Item] = field(default_factory=list)
    pieces: list[Content] = field(default_factory=list)
    nbytes: int = 0


class FileBatches:
    """Takes small files; after some hundreds, processes write them."""

    def __init__(self, tree: Tree, counter: Counter, workers: WorkerGroup) -> None:
        self._tree = tree
        self._counter = counter
        self._workers = workers
        self._seen = 0
        self._batch = _Batch()
        self._queue: BoundedQueue[_Batch] | None = None
        self._written = workers.condition()
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
        if self._queue is None:
            content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._tree.put(path, content, mode, time_s)
            with self._workers.lock:
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
            self._hand_on(self._queue)

    def close(self) -> None:
        """Hands on what is left; to be called when the last file has come."""
        if self._queue is not None:
            self._hand_on(self._queue)
            self._queue.close()

    def wait_until_written(self) -> None:
        """Waits until every file that was taken is written."""
        if self._queue is not None:
            self._hand_on(self._queue)
            with self._workers.lock:
                self._workers.wait_for(self._written, lambda: not self._waiting)

    def _hand_on(self, queue: BoundedQueue[_Batch]) -> None:
        batch, self._batch = self._batch, _Batch()
        with self._workers.lock:
            self._waiting += 1
        queue.put(batch, batch.nbytes)

    def _start(self) -> None:
        # Cutting takes a core or two, but on a disk a writer waits more than it works.
        count = os.cpu_count() or 1
        self._queue = BoundedQueue(self._workers, _QUEUE_BYTES)
        for number in range(count):
            work = partial(self._write, self._queue, WriterProcess(self._tree, wanted=True))
            self._workers.start(f"write-{number}", work, awaited=True)

    def _write(self, queue: BoundedQueue[_Batch], process: WriterProcess) -> None:
        try:
            for batch in queue:
                if process.put(batch.items, batch.pieces) is None:
                    self._write_here(batch)
                with self._workers.lock:
                    self._counter.bytes_written += batch.nbytes
                    self._counter.files_done += len(batch.items)
                    self._waiting -= 1
                    self._written.notify_all()
        finally:
            process.close()

    def _write_here(self, batch: _Batch) -> None:
        data = memoryview(b"".join(batch.pieces))
        for path, begin, end, _, _, _, mode, time_s in batch.items:
            self._workers.check()
            self._tree.put(path, data[begin:end], mode, time_s)
