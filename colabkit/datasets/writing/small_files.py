"""Unpacks and writes small files, here or in a process of its own.

It imports nothing of colabkit, so that such a process starts in a hundredth of a second.
"""

from __future__ import annotations

import errno
import marshal
import mmap
import os
import struct
import sys
import zlib

# Loading typing takes longer than all else here; type checkers take this name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, BinaryIO

_igzip: Any = None
crc32: Any = zlib.crc32
try:
    from isal import igzip_lib as _igzip
    from isal.isal_zlib import crc32 as crc32
except ImportError:
    pass

STORED, DEFLATE = 0, 8
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK_EVERY = 32
_AHEAD_BYTES = 16 << 20
_LAST_TIME_S = 1 << 33
_LOCAL = struct.Struct("<4s2xHH4xLLLHH")
_MAGIC = b"PK\x03\x04"
_ENCRYPTED_FLAG, _LATER_FLAG = 0x1, 0x8

DAMAGES: tuple[type[Exception], ...] = (
    *(zlib.error, ValueError, MemoryError, OverflowError),
    *([_igzip.error] if _igzip is not None else []),
)

Content = bytes | bytearray | memoryview
Item = tuple[str, int, int, int, int, int, int, float]
"""(path, begin, end, method, nbytes, CRC-32, mode, time) of a file, with its place in the data."""
Head = tuple[int, int]
"""(flags, packed bytes) of a zip's member whose place is that of its local header."""
WriteRequest = tuple[int, int, list[Item], list[Head] | None]
"""What to do: with heads, the items lie between two offsets of the archive; else in the memory."""
Answer = tuple[int, str, str, int]
"""(bytes written, path, why, errno): without a path all went well."""
DOUBTFUL: Answer = (-1, "", "", 0)
"""A slower look is needed to tell whether the archive is damaged; nothing is lost."""


class DamagedFileError(Exception):
    """A file's bytes are not what was declared; the arguments are its path and why."""


def inflate_whole(packed: Content, nbytes: int) -> Content:
    """Unpacks a raw deflate stream that should give ``nbytes``, never much more.

    Raises:
        ValueError: It gives more or less; or one of ``DAMAGES`` where it is damaged.
    """
    stream: Any
    if _igzip is not None:
        stream = _igzip.IgzipDecompressor(flag=_igzip.DECOMP_DEFLATE)
    else:
        stream = zlib.decompressobj(-15)
    content: Content = stream.decompress(packed, nbytes + 1)
    if not stream.eof and len(content) == nbytes:
        # The end mark may need one more call once the output is full.
        content += stream.decompress(getattr(stream, "unconsumed_tail", b""), 1)
    if not stream.eof and len(content) <= nbytes:
        message = "does not end where it should"
        raise ValueError(message)
    if len(content) != nbytes:
        message = f"gives {len(content):,} bytes or more instead of {nbytes:,}"
        raise ValueError(message)
    return content


def create(name: str, permissions: int) -> int:
    """Opens a new file; one that an earlier, killed call left is replaced."""
    try:
        return os.open(name, FLAGS, permissions)
    except FileExistsError:
        os.unlink(name)  # noqa: PTH108 - pathlib takes longer to import than all else
        return os.open(name, FLAGS, permissions)


def permissions_of(mode: int) -> int:
    """Returns what a file gets: only whether it can be executed is kept."""
    return 0o755 if mode & 0o111 else 0o644


def date(file: int | str, time_s: float) -> None:
    """Gives a file the time at which it was changed; NaN leaves it as it is."""
    if 0 <= time_s < _LAST_TIME_S:
        try:  # noqa: SIM105 - contextlib takes longer to import than all else
            os.utime(file, (time_s, time_s))
        except OSError:
            pass  # not every disk lets its files be dated


def put(name: str, content: Content, mode: int, time_s: float) -> None:
    """Writes a whole file."""
    descriptor = create(name, permissions_of(mode))
    try:
        done = os.write(descriptor, content) if content else 0
        while done < len(content):
            done += os.write(descriptor, memoryview(content)[done:])
        date(descriptor, time_s)
    finally:
        os.close(descriptor)


def content_of(data: memoryview, item: Item) -> Content:
    """Returns a file's content, checked.

    Raises:
        DamagedFileError: It is not what was declared.
    """
    path, begin, end, method, nbytes, crc, _, _ = item
    content: Content = data[begin:end]
    if method == DEFLATE:
        try:
            content = inflate_whole(content, nbytes)
        except DAMAGES as error:
            raise DamagedFileError(path, f"cannot be unpacked ({error})") from error
    if crc32(content, 0) != crc:
        raise DamagedFileError(path, "has another CRC-32 than the directory says")
    return content


def located(data: memoryview, item: Item, head: Head) -> Item | None:
    """Returns a zip's member with the place of its data, None where its local header is another."""
    path, place, bound, method, nbytes, crc, mode, time_s = item
    flags, packed = head
    if place + _LOCAL.size > len(data):
        return None
    magic, flags_here, method_here, *sizes, name_bytes, extra_bytes = _LOCAL.unpack_from(
        data, place
    )
    begin = place + _LOCAL.size + name_bytes + extra_bytes
    is_same = (
        magic == _MAGIC
        and method_here == method
        and not (flags_here ^ flags) & _ENCRYPTED_FLAG
        and (flags_here & _LATER_FLAG or sizes == [crc, packed, nbytes])
        and begin + packed <= min(bound, len(data))
    )
    return (path, begin, begin + packed, method, nbytes, crc, mode, time_s) if is_same else None


class Worker:
    """Does what comes: files whose data lies in shared memory, or in an archive on this disk.

    Args:
        memory: The shared memory.
        archive: The archive's descriptor, -1 where there is none to read from.
    """

    def __init__(self, memory: memoryview, archive: int) -> None:
        self._memory = memory
        self._archive = archive
        self._buffer = bytearray()
        self._parent = os.getppid()

    def serve(self, requests: BinaryIO, answers: BinaryIO) -> None:
        """Answers each request until there are no more."""
        while len(head := requests.read(8)) == 8:
            request = marshal.loads(requests.read(int.from_bytes(head, "little")))  # noqa: S302 - from our parent
            out = marshal.dumps(self._do(*request))
            answers.write(len(out).to_bytes(8, "little") + out)
            answers.flush()

    def _do(
        self, begin: int, end: int, items: Sequence[Item], heads: Sequence[Head] | None
    ) -> Answer:
        if heads is None:
            return self._put_all(items, self._memory)
        data = self._read(begin, end)
        if data is None:
            return DOUBTFUL
        found = [located(data, *place) for place in zip(items, heads, strict=True)]
        there = [item for item in found if item is not None]
        return self._put_all(there, data) if len(there) == len(found) else DOUBTFUL

    def _put_all(self, items: Sequence[Item], data: memoryview) -> Answer:
        nbytes = 0
        path = ""
        try:
            for number, item in enumerate(items):
                if not number % _LOOK_EVERY and os.getppid() != self._parent:
                    # Nobody waits for the rest, and another process may be at it already.
                    sys.exit(1)
                path = item[0]
                content = content_of(data, item)
                put(path, content, item[6], item[7])
                nbytes += len(content)
        except DamagedFileError as error:
            return nbytes, path, str(error.args[1]), 0
        except OSError as error:
            return nbytes, path, "", error.errno or errno.EIO
        return nbytes, "", "", 0

    def _read(self, begin: int, end: int) -> memoryview | None:
        """Returns a part of the archive, None where it cannot be read whole."""
        if len(self._buffer) < end - begin:
            self._buffer = bytearray(end - begin)
        view = memoryview(self._buffer)[: end - begin]
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._archive, [view[done:]], begin + done)
            except OSError:
                return None
            if not count:
                return None
            done += count
        # What comes next is on its way from the disk while this is unpacked.
        os.posix_fadvise(self._archive, end, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
        return view


def main() -> None:
    """Serves standard input; the arguments are the folder to write to and two descriptors."""
    # A name is looked up from here, and not from the root for each file.
    os.chdir(sys.argv[1])
    with mmap.mmap(int(sys.argv[2]), 0, access=mmap.ACCESS_READ) as memory:
        worker = Worker(memoryview(memory), int(sys.argv[3]))
        worker.serve(sys.stdin.buffer, sys.stdout.buffer)
