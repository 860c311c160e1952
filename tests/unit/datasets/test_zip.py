"""Zips of every kind come out as the standard library's zipfile says."""

from __future__ import annotations

import random
import zipfile
import zlib
from pathlib import Path

import pytest

from colabkit.datasets import open_source, plan_archive, unpack


def unpacked(archive: Path, into: Path, **options: object) -> dict[str, bytes]:
    """Unpacks an archive; returns what lies there afterwards."""
    into.mkdir(exist_ok=True)
    source = open_source(archive)
    try:
        manifest = unpack(plan_archive(source, **options), source, into)
    finally:
        source.close()
    found = {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}
    assert sorted((f.path, f.nbytes, f.crc32) for f in manifest) == sorted(
        (path, len(data), zlib.crc32(data)) for path, data in found.items()
    )
    return found


def content(number: int) -> bytes:
    """Returns bytes that differ for each number: some pack well, some not, some are long."""
    draw = random.Random(number)
    nbytes = draw.choice([0, 1, 100, 5000, 70_000, 300_000])
    return draw.randbytes(nbytes) if number % 2 else (b"%d;" % number * nbytes)[:nbytes]


FILES = {f"top/{n % 7}/{n:03}.bin": content(n) for n in range(120)}
FILES["top/large.csv"] = b"".join(b"%d,%d\n" % (n, n * n) for n in range(900_000))


@pytest.mark.parametrize(
    "method",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
    ids=["stored", "deflate", "bzip2", "lzma"],
)
def test_every_method_comes_out_whole(tmp_path, method):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", method) as z:
        for path, data in FILES.items():
            z.writestr(path, data)
    assert unpacked(archive, tmp_path / "out") == FILES
