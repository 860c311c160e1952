"""Unpacks one archive in a fresh process and prints the seconds; imports are not counted.

Run as ``python -m benchmarks.unpack_once CONTENDER ARCHIVE FOLDER``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

OPTIONAL = ("isal", "isal.isal_zlib", "isal.igzip_lib")


def colabkit(archive: Path, into: Path) -> Callable[[], object]:
    """Ours, with whatever is installed."""
    from colabkit.datasets import open_source, plan_archive, unpack

    def work() -> None:
        source = open_source(archive)
        unpack(plan_archive(source), source, into)
        source.close()

    return work


def plain(archive: Path, into: Path) -> Callable[[], object]:
    """Ours, with the standard library alone."""
    for package in OPTIONAL:
        sys.modules[package] = None  # type: ignore[assignment]
    return colabkit(archive, into)


def zipfile(archive: Path, into: Path) -> Callable[[], object]:
    """The standard library's zipfile."""
    import zipfile

    return lambda: zipfile.ZipFile(archive).extractall(into)


def shutil(archive: Path, into: Path) -> Callable[[], object]:
    """The standard library's shutil.unpack_archive, which is tarfile for a tar."""
    import shutil

    return lambda: shutil.unpack_archive(archive, into)


def torchvision(archive: Path, into: Path) -> Callable[[], object]:
    """The extractor of torchvision's data sets."""
    from torchvision.datasets.utils import extract_archive

    return lambda: extract_archive(str(archive), str(into))


def keras(archive: Path, into: Path) -> Callable[[], object]:
    """The extractor of keras' get_file."""
    from keras.src.utils.file_utils import extract_archive

    return lambda: extract_archive(str(archive), str(into))


def limit(archive: Path, into: Path) -> Callable[[], object]:
    """Creates the same files from memory: the archive is the folder with them."""
    files = [(str(path.relative_to(archive)), path) for path in archive.rglob("*")]
    contents = [(name, path.read_bytes()) for name, path in files if path.is_file()]
    for name, path in files:
        if path.is_dir():
            (into / name).mkdir(parents=True, exist_ok=True)
    large = max(len(data) for _, data in contents) > 8 << 20

    def put(item: tuple[str, bytes]) -> None:
        descriptor = os.open(f"{into}/{item[0]}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        view = memoryview(item[1])
        while view:
            view = view[os.write(descriptor, view[: 1 << 20]) :]
        os.close(descriptor)

    def work() -> None:
        # Small files are made no faster by several threads; large ones are.
        with ThreadPoolExecutor(os.cpu_count() if large else 1) as pool:
            list(pool.map(put, contents, chunksize=1))

    def alone() -> None:
        for item in contents:
            put(item)

    return work if large else alone


def main() -> None:
    """Times one contender."""
    name, archive, into = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    work = {
        made.__name__: made
        for made in (colabkit, plain, zipfile, shutil, torchvision, keras, limit)
    }[name](archive, into)
    began_s = time.perf_counter()
    work()
    print(time.perf_counter() - began_s)


if __name__ == "__main__":
    main()
