"""Archives and folders to make datasets from, and what they hold."""

from __future__ import annotations

import io
import os
import random
import tarfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

Content = Mapping[str, bytes]
LONG_AGO_S = 1_700_000_000


def some_files(number: int = 40, *, seed: int = 0) -> dict[str, bytes]:
    """Returns files of several sizes in several folders."""
    draw = random.Random(seed)
    sizes = (0, 1, 300, 5_000, 70_000)
    return {
        f"{draw.choice(['cats', 'dogs', 'a/b/c'])}/{n:04}.bin": draw.randbytes(draw.choice(sizes))
        for n in range(number)
    }


def make_zip(path: Path, files: Content, *, parents: bool = False) -> Path:
    """Writes a zip."""
    if parents:
        path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return aged(path)


def make_tar(path: Path, files: Content, *, mode: str = "w") -> Path:
    """Writes a tar; ``mode`` is that of tarfile."""
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return aged(path)


def make_folder(path: Path, files: Content) -> Path:
    """Writes a folder whose files have not changed for long."""
    for name, data in files.items():
        put(path / name, data)
    return path


def put(path: Path, data: bytes) -> Path:
    """Writes a file that has not changed for long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return aged(path)


def aged(path: Path) -> Path:
    """Sets a file's time of change back, to one that no other call has set."""
    aged.count = getattr(aged, "count", 0) + 1  # type: ignore[attr-defined]
    os.utime(path, (LONG_AGO_S, LONG_AGO_S + aged.count))  # type: ignore[attr-defined]
    return path


def content_of(folder: Path) -> dict[str, bytes]:
    """Returns every file of a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def inodes_of(folder: Path) -> dict[str, int]:
    """Returns every file of a folder with its number on the file system."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_ino
        for path in folder.rglob("*")
        if path.is_file()
    }


def wait_until(holds, *, timeout_s: float = 300.0) -> None:
    """Waits for something another process does."""
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.005)
