"""Unpacks and writes small files; run as a program, it does so for another process.

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
from collections.abc import Sequence
from typing import Any, BinaryIO

if __name__ == "__main__":
    sys.path.extend(sys.argv[3:])

_igzip: Any = None
crc32: Any = zlib.crc32
try:
    from isal import igzip_lib as _igzip
    from isal.isal_zlib import crc32 as crc32
except ImportError:
    pass

STORED, DEFLATE = 0, 8
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PREFIX = struct.Struct("<QB")
_LOOK_EVERY = 32

DAMAGES: tuple[type[Exception], ...] = (
    *(zlib.error, ValueError, MemoryError, OverflowError),
    *([_igzip.error] if _igzip is not None else []),
)

Content = bytes | bytearray | memoryview
Item = tuple[str, int, int, int, int, int, int]
"""(path, begin, end, method, nbytes, CRC-32, mode) of a file, with its place in the data."""


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


def put(name: str, content: Content, mode: int) -> None:
    """Writes a whole file."""
    descriptor = create(name, permissions_of(mode))
    try:
        done = os.write(descriptor, content) if content else 0
        while done < len(content):
            done += os.write(descriptor, memoryview(content)[done:])
    finally:
        os.close(descriptor)


def content_of(data: memoryview, item: Item) -> Content:
    """Returns a file's content, checked.

    Raises:
        DamagedFileError: It is not what was declared.
    """
    path, begin, end, method, nbytes, crc, _ = item
    content: Content = data[begin:end]
    if method == DEFLATE:
        try:
            content = inflate_whole(content, nbytes)
        except DAMAGES as error:
            raise DamagedFileError(path, f"cannot be unpacked ({error})") from error
    if crc32(content, 0) != crc:
        raise DamagedFileError(path, "has another CRC-32 than the directory says")
    return content


def serve(requests: BinaryIO, answers: BinaryIO, data: memoryview, root: str) -> None:
    """Does what comes: a list of items whose data lies in shared memory.

    Each answer is (bytes written, path, why, errno): an empty path says that all went well.
    """
    parent = os.getppid()
    while len(head := requests.read(8)) == 8:
        items = marshal.loads(requests.read(int.from_bytes(head, "little")))  # noqa: S302 - from our parent
        answer = _do(items, data, root, parent)
        out = marshal.dumps(answer)
        answers.write(len(out).to_bytes(8, "little") + out)
        answers.flush()


def _do(
    items: Sequence[Item], data: memoryview, root: str, parent: int
) -> tuple[int, str, str, int]:
    nbytes = 0
    path = ""
    try:
        for number, item in enumerate(items):
            if not number % _LOOK_EVERY and os.getppid() != parent:
                # Nobody waits for the rest, and another process may be at it already.
                sys.exit(1)
            path = item[0]
            content = content_of(data, item)
            put(root + path, content, item[6])
            nbytes += len(content)
    except DamagedFileError as error:
        return nbytes, path, str(error.args[1]), 0
    except OSError as error:
        return nbytes, path, "", error.errno or errno.EIO
    return nbytes, "", "", 0


def main() -> None:
    """Serves standard input; the arguments are the memory's descriptor and the root."""
    with mmap.mmap(int(sys.argv[1]), 0, access=mmap.ACCESS_READ) as memory:
        serve(sys.stdin.buffer, sys.stdout.buffer, memoryview(memory), sys.argv[2])


if __name__ == "__main__":
    main()
