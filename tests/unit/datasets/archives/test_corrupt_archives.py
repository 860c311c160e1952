"""Damaged archives are refused with the member's name, whatever is damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct

import pytest

import colabkit
from colabkit.errors import ArchiveCorruptError, ArchiveError, ArchiveUnsafeError
from tests.unit.datasets.building import (
    DEFLATE,
    ZipMember,
    attempt,
    deflated,
    pax,
    raw_tar,
    raw_zip,
    tar_entry,
    tar_header,
    tree,
)

TEXT = b"a line of text, again and again\n" * 400
LARGE = bytes(range(256)) * (40 << 10)


def refused(archive: bytes, tmp_path) -> ArchiveError:
    manifest, error = attempt(archive, tmp_path)
    assert manifest is None
    assert type(error) in {ArchiveCorruptError, ArchiveUnsafeError}
    return error


LIES = {
    "CRC": ZipMember(b"m", TEXT, crc=1),
    "CRC, deflated": ZipMember(b"m", TEXT, DEFLATE, crc=1),
    "CRC, large": ZipMember(b"m", LARGE, crc=1),
    "CRC, large and deflated": ZipMember(b"m", LARGE, DEFLATE, crc=1),
    "smaller than it is": ZipMember(b"m", TEXT, DEFLATE, nbytes=10),
    "larger than it is": ZipMember(b"m", TEXT, DEFLATE, nbytes=len(TEXT) + 1),
    "empty, but is not": ZipMember(b"m", TEXT, DEFLATE, nbytes=0),
    "stored with two sizes": ZipMember(b"m", TEXT, nbytes=len(TEXT) - 1),
    "cut stream": ZipMember(b"m", TEXT, DEFLATE, packed=deflated(TEXT)[:-5]),
    "no stream": ZipMember(b"m", TEXT, DEFLATE, packed=b"\xff" * 60),
    "beyond the end": ZipMember(b"m", TEXT, packed_bytes=1 << 30, nbytes=1 << 30),
    "terabytes": ZipMember(b"m", TEXT, DEFLATE, nbytes=0xFFFFFFFE),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_zip_member_that_lies_is_refused_by_name(tmp_path, lie):
    error = refused(raw_zip([ZipMember(b"good", TEXT), lie]), tmp_path)
    assert error.member == "m"


def test_bytes_after_a_members_stream_do_not_matter(tmp_path):
    member = ZipMember(b"m", TEXT, DEFLATE, packed=deflated(TEXT) + b"more")
    _, error = attempt(raw_zip([member]), tmp_path)
    assert error is None


def test_a_zip_cut_anywhere_is_refused(tmp_path):
    archive = raw_zip([ZipMember(b"a", TEXT, DEFLATE), ZipMember(b"b", TEXT)])
    for number, size in enumerate(range(0, len(archive), 997)):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused(archive[:size], folder)


def test_a_zip_that_lists_another_number_of_members_is_refused(tmp_path):
    for number, count in enumerate([0, 1, 3, 65_000, 100_000]):
        folder = tmp_path / str(number)
        folder.mkdir()
        archive = raw_zip([ZipMember(b"a", TEXT), ZipMember(b"b", TEXT)], n_entries=count)
        _, error = attempt(archive, folder)
        assert isinstance(error, ArchiveCorruptError)


def test_a_zip_whose_end_lies_about_its_directory_is_refused(tmp_path):
    archive = bytearray(raw_zip([ZipMember(b"a", TEXT)]))
    for number, (place, value) in enumerate([(-10, 1 << 30), (-6, 1 << 30), (-10, 3), (-6, 0)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        changed = archive.copy()
        struct.pack_into("<L", changed, len(changed) + place, value)
        _, error = attempt(bytes(changed), folder)
        if error is None:
            # Bytes before the archive are allowed, so an offset alone may be shifted.
            assert tree(folder / "outer" / "into") == {"a": TEXT}
        else:
            assert isinstance(error, ArchiveError)


TAR = raw_tar(tar_entry(b"good", b"x"), tar_entry(b"m", TEXT))
TAR_LIES = {
    "cut within a member": TAR[: 512 * 6],
    "cut within a header": TAR[:1200],
    "more than there is": raw_tar(tar_header(b"m", 1 << 30), b"x" * 512),
    "checksum": raw_tar(tar_header(b"m", checksum=b"000001\0 ")),
    "no number": raw_tar(tar_header(b"m", size_field=b"zzzzzzzzzzz")),
    "negative": raw_tar(tar_header(b"m", size_field=b"\xff" * 12)),
    "huge": raw_tar(tar_header(b"m", size_field=b"\x80" + b"\xff" * 11)),
    "huge by pax": raw_tar(pax(size="9" * 30), tar_entry(b"m", b"x")),
    "no size by pax": raw_tar(pax(size="-5"), tar_entry(b"m", b"x")),
    "a pax record's length": raw_tar(tar_entry(b"p", b"99 path=m\n", b"x"), tar_entry(b"m", b"x")),
}


@pytest.mark.parametrize("archive", TAR_LIES.values(), ids=TAR_LIES.keys())
def test_a_damaged_tar_is_refused(tmp_path, archive):
    refused(archive, tmp_path)


ENDS = {
    "without its end mark": (TAR[:-1024], "has no end mark"),
    "half an end mark": (TAR[:-512], ""),
    "with more behind": (TAR + TAR, "Something follows the end"),
    "with one block, then more": (TAR[:-512] + TAR, "Something follows the end"),
}


@pytest.mark.parametrize(("archive", "words"), ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_a_tar_ends_where_other_programs_see_its_end(tmp_path, cache, capsys, archive, words, pack):
    path = tmp_path / "a.tar"
    path.write_bytes(pack(archive))
    assert tree(colabkit.dataset(path)) == {"good": b"x", "m": TEXT}
    said = capsys.readouterr().out
    assert words in said
    assert words or said.startswith("Unpacked")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_bytes_behind_a_packed_tar_are_left_out_and_said(tmp_path, cache, capsys, pack):
    path = tmp_path / "a.tar"
    path.write_bytes(pack(TAR) + b"\0\0junk")
    assert tree(colabkit.dataset(path)) == {"good": b"x", "m": TEXT}
    assert "Something follows the end" in capsys.readouterr().out
    # Where the tar has no end yet, it is a stream of it that was damaged.
    for cut in (1024, 2048):
        (tmp_path / "b.tar").write_bytes(pack(TAR[:-cut]) + b"junk" + pack(TAR[-cut:]))
        with pytest.raises(ArchiveCorruptError):
            colabkit.dataset(tmp_path / "b.tar")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_tar_cut_or_changed_anywhere_is_refused(tmp_path, pack):
    packed = pack(TAR)
    changed = bytearray(packed)
    changed[len(changed) // 2] ^= 0x10
    tail = bytearray(packed)
    tail[-6] ^= 1
    damaged = [packed[:size] for size in (len(packed) // 2, len(packed) - 4)]
    for number, archive in enumerate([*damaged, bytes(changed), bytes(tail)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused(archive, folder)


def test_a_damaged_tar_zst_is_refused(tmp_path):
    import zstandard

    packed = zstandard.ZstdCompressor(write_checksum=True).compress(TAR)
    damaged = bytearray(packed)
    damaged[len(damaged) // 2] ^= 0xFF
    for number, archive in enumerate([packed[:-3], packed[: len(packed) // 2], bytes(damaged)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused(archive, folder)


def test_what_is_no_archive_is_called_so(tmp_path):
    kinds = {
        "empty": b"",
        "web page": b"<!DOCTYPE html><title>Sign in</title>",
        "text": b"hello " * 1000,
        "zeros": bytes(10_000),
        "pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1",
    }
    for name, content in kinds.items():
        folder = tmp_path / name
        folder.mkdir()
        error = refused(content, folder)
        assert "archive" in str(error)
        for told in ("web page", "pointer of Git LFS"):
            assert (told in str(error)) == (name == told)


def test_an_archive_that_was_packed_twice_is_called_so(tmp_path):
    error = refused(gzip.compress(gzip.compress(raw_tar(tar_entry(b"a")))), tmp_path)
    assert "packed with gz once more" in str(error)
