"""A folder each call of which takes a while, as a mounted Drive's: a FUSE file system."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mfusepy


class MountRefusedError(RuntimeError):
    """No FUSE file system can be mounted here."""


class SlowFiles(mfusepy.Operations):
    """Gives another folder's files, each call after a wait.

    Args:
        root: The folder.
        latency_s: How long each call waits.
    """

    use_ns = True

    def __init__(self, root: str, latency_s: float) -> None:
        self._root = root
        self._latency_s = latency_s

    def _wait(self) -> None:
        time.sleep(self._latency_s)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:  # noqa: ARG002
        self._wait()
        status = os.lstat(self._root + path)
        names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")
        facts = {name: getattr(status, name) for name in names}
        return facts | {"st_mtime": status.st_mtime_ns, "st_ctime": 0, "st_atime": 0}

    def readdir(self, path: str, fh: int) -> list[str]:  # noqa: ARG002
        self._wait()
        return [".", "..", *os.listdir(self._root + path)]  # noqa: PTH208 - names are wanted

    def open(self, path: str, flags: int) -> int:
        self._wait()
        return os.open(self._root + path, flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002
        self._wait()
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> int:  # noqa: ARG002
        os.close(fh)
        return 0


@contextlib.contextmanager
def slowed(root: Path, mountpoint: Path, *, latency_s: float) -> Iterator[Path]:
    """Yields a folder with the files of another, each call of which takes a while."""
    mountpoint.mkdir()
    command = [sys.executable, "-m", "benchmarks.slow_folder", root, mountpoint, str(latency_s)]
    server = subprocess.Popen([*map(str, command)])
    try:
        while not mountpoint.is_mount():
            if server.poll() is not None:
                message = "this machine mounts no FUSE file systems"
                raise MountRefusedError(message)
            time.sleep(0.05)
        yield mountpoint
    finally:
        subprocess.run(["umount", "--lazy", str(mountpoint)], check=False)
        server.kill()
        server.wait(10)


def main() -> None:
    root, mountpoint, latency_s = sys.argv[1:]
    operations = SlowFiles(root, float(latency_s))
    mfusepy.FUSE(operations, mountpoint, foreground=True, nothreads=False, max_threads=64)


if __name__ == "__main__":
    main()
