"""Mutated archives end in a good tree or in an archive error: nothing else, and soon."""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from colabkit.datasets import Limits
from colabkit.errors import (
    ArchiveCorruptError,
    ArchivePasswordError,
    ArchiveUnsafeError,
    ArchiveUnsupportedError,
    MissingPackageError,
)
from tests.unit.datasets.building import (
    DEFLATE,
    ZipMember,
    attempt,
    pax,
    raw_tar,
    raw_zip,
    side_by_side,
    tar_entry,
)

SOAK = os.environ.get("COLABKIT_SOAK") == "1"
EXAMPLES = 20_000 if SOAK else 1000
TIME_S = 10.0
GROWTH_KB = 300 << 10
ALLOWED = (
    ArchiveCorruptError,
    ArchiveUnsafeError,
    # A mutated method or flag may ask for what is not read here, or not without a package.
    ArchiveUnsupportedError,
    ArchivePasswordError,
    MissingPackageError,
)
LIMITS = Limits(total_bytes=64 << 20, ratio=300, ratio_free_bytes=8 << 20, empty_files=1000)

DATA = b"some text to pack " * 60
ZIP = raw_zip(
    [
        ZipMember(b"folder/", mode=0o40755),
        ZipMember(b"folder/a.txt", DATA, DEFLATE),
        ZipMember(b"folder/b.bin", bytes(range(256)), mode=0o100755),
        ZipMember(b"link", b"folder/a.txt", mode=0o120777),
        ZipMember("é.txt".encode(), DATA * 30, DEFLATE, flags=0x800),
    ]
)
TAR = raw_tar(
    tar_entry(b"folder/", kind=b"5"),
    tar_entry(b"folder/a.txt", DATA),
    pax(path="folder/" + "n" * 120, size="6"),
    tar_entry(b"short", b"sixsix"),
    tar_entry(b"././@LongLink", b"folder/" + b"m" * 120 + b"\0", b"L"),
    tar_entry(b"short", b"x"),
    tar_entry(b"link", kind=b"2", link=b"folder/a.txt"),
    tar_entry(b"hard", kind=b"1", link=b"folder/a.txt"),
)
SEEDS = {"zip": ZIP, "tar": TAR, "tar.gz": gzip.compress(TAR, mtime=0)}


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """Bytes with a few places overwritten, inserted, removed, doubled or cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.sampled_from([1, 1, 2, 4, 8, 30, 512]))
        match draw(st.sampled_from(["flip", "set", "extreme", "insert", "remove", "copy", "cut"])):
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "set":
                data[place : place + size] = draw(st.binary(min_size=size, max_size=size))
            case "extreme":
                data[place : place + size] = draw(st.sampled_from([b"\0", b"\xff"])) * size
            case "insert":
                data[place:place] = draw(st.binary(max_size=size))
            case "remove":
                del data[place : place + size]
            case "copy":
                other = draw(st.integers(0, max(0, len(data) - 1)))
                data[place : place + size] = data[other : other + size]
            case _:
                del data[max(place, len(data) // 2) :]
    return bytes(data)


@pytest.mark.soak
@pytest.mark.parametrize("kind", SEEDS)
def test_a_mutated_archive_ends_in_a_tree_or_in_an_archive_error(kind):
    @seed(7)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(SEEDS[kind]))
    def check(archive: bytes) -> None:
        folder = Path(tempfile.mkdtemp())
        began_s = time.process_time()
        try:
            with side_by_side(really=len(archive) % 2 == 1):
                manifest, error = attempt(archive, folder, limits=LIMITS)
        finally:
            shutil.rmtree(folder)
        assert error is None or isinstance(error, ALLOWED), repr(error)
        assert (manifest is None) != (error is None)
        assert time.process_time() - began_s < TIME_S

    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < GROWTH_KB
