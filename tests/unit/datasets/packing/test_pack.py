"""pack(): the same files give the same bytes, what is written is verified, and it stays fresh."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import colabkit
from colabkit import errors
from colabkit.cli import main
from colabkit.datasets.folders.listing import FolderReader, list_folder
from colabkit.datasets.packing.pack_call import Packed, pack_listed
from colabkit.datasets.reading.progress import Watch
from tests.abilities import BSDTAR, SEVEN_ZIP, UNZIP
from tests.unit.datasets.sources import (
    LONG_AGO_S,
    content_of,
    inodes_of,
    make_folder,
    put,
    some_files,
)

FILES = {
    **some_files(),
    "text/notes.txt": b"the same again " * 4000,
    "text/long.csv": b"".join(b"%d,%d\n" % (n, n * n) for n in range(300_000)),
    "photo.jpg": random.Random(1).randbytes(3_000_000),
    "名前/猫.txt": b"neko",
    "empty.txt": b"",
}


def pack(folder: Path, archive: Path) -> Path:
    return colabkit.pack(folder, archive, progress=False)


def packed(folder: Path, archive: Path) -> Packed:
    """Packs, and returns what was done."""

    def give_up(error: OSError) -> None:
        raise error

    listing = list_folder(folder)
    return pack_listed(
        folder, listing, archive, listed_ns=LONG_AGO_S * 2 * 10**9, watch=Watch(), retry=give_up
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_folder(tmp_path / "cats", FILES)


@pytest.mark.needs(UNZIP)
def test_holds_every_file_as_other_programs_see_it(folder, tmp_path):
    (folder / "nothing/inside").mkdir(parents=True)
    archive = pack(folder, tmp_path / "cats.zip")
    with zipfile.ZipFile(archive) as z:
        assert z.testzip() is None
        assert "nothing/inside/" in z.namelist()
        assert {n: z.read(n) for n in z.namelist() if not n.endswith("/")} == FILES
    subprocess.run(["unzip", "-tq", archive], check=True, capture_output=True)


def test_text_is_deflated_and_what_does_not_shrink_is_stored(folder, tmp_path):
    with zipfile.ZipFile(pack(folder, tmp_path / "cats.zip")) as z:
        methods = {info.filename: info.compress_type for info in z.infolist()}
    assert methods["text/notes.txt"] == methods["text/long.csv"] == zipfile.ZIP_DEFLATED
    assert methods["photo.jpg"] == methods["empty.txt"] == zipfile.ZIP_STORED
    assert all(methods[n] == zipfile.ZIP_STORED for n in FILES if n.endswith(".bin"))


def test_the_same_files_give_the_same_bytes(folder, tmp_path):
    again = make_folder(tmp_path / "other", dict(reversed(FILES.items())))
    for name in FILES:
        shutil.copystat(folder / name, again / name)
    first = pack(folder, tmp_path / "1.zip").read_bytes()
    assert pack(again, tmp_path / "2.zip").read_bytes() == first


def test_a_fresh_archive_is_left_alone(folder, tmp_path):
    archive = tmp_path / "cats.zip"
    assert packed(folder, archive).is_new
    before = archive.stat()
    assert not packed(folder, archive).is_new
    assert (archive.stat().st_ino, archive.stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )


def test_only_what_changed_is_read_again(folder, tmp_path):
    archive = tmp_path / "cats.zip"
    packed(folder, archive)
    (folder / "empty.txt").write_bytes(b"no more")
    os.utime(folder / "empty.txt", (LONG_AGO_S * 2 + 1,) * 2)
    again = packed(folder, archive)
    small = sum(len(data) <= 1 << 20 for data in FILES.values())
    assert again.reused == small - 1
    assert archive.read_bytes() == pack(folder, tmp_path / "anew.zip").read_bytes()


@pytest.mark.parametrize("older_by_s", [-5, 0, 5])
def test_a_file_replaced_by_one_of_its_size_is_seen_however_old_it_is(
    folder, tmp_path, cache, older_by_s
):
    archive, target = tmp_path / "cats.packed.zip", folder / "text/notes.txt"
    pack(folder, archive)
    assert content_of(colabkit.dataset(folder, progress=False)) == FILES
    time_s = target.stat().st_mtime - older_by_s
    target.write_bytes(FILES["text/notes.txt"][::-1])
    os.utime(target, (time_s, time_s + 0.5))
    assert content_of(colabkit.dataset(folder, progress=False)) == content_of(folder) != FILES


def test_an_empty_folder_that_comes_or_goes_is_seen(folder, tmp_path):
    archive = pack(folder, tmp_path / "cats.zip")
    (folder / "nothing").mkdir()
    pack(folder, archive)
    assert "nothing/" in zipfile.ZipFile(archive).namelist()
    (folder / "nothing").rmdir()
    pack(folder, archive)
    assert "nothing/" not in zipfile.ZipFile(archive).namelist()


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(["unzip", "-tq"], marks=pytest.mark.needs(UNZIP)),
        pytest.param(["7z", "t"], marks=pytest.mark.needs(SEVEN_ZIP)),
        pytest.param(["bsdtar", "-tf"], marks=pytest.mark.needs(BSDTAR)),
    ],
)
def test_other_programs_find_nothing_wrong(folder, tmp_path, program):
    archive = pack(folder, tmp_path / "cats.zip")
    done = subprocess.run([*program, archive], check=True, capture_output=True, text=True)
    assert "warning" not in (done.stdout + done.stderr).lower()


def test_what_shrinks_a_thousandfold_is_taken_back(tmp_path, cache, monkeypatch):
    zeros = bytes(20 << 20)
    folder = make_folder(tmp_path / "masks", {"a.npy": zeros, "b.npy": zeros[: 1 << 20]})
    archive = pack(folder, tmp_path / "masks.zip")
    assert archive.stat().st_size < len(zeros) // 100
    limits = colabkit.datasets.Limits(ratio_free_bytes=0)
    made = colabkit.dataset(archive, limits=limits, progress=False)
    assert content_of(made) == content_of(folder)


class Rewriting(FolderReader):
    """A folder one file of which is written anew, at the same length, while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, descriptor: int, nbytes: int, offset: int) -> bytes:
        data = super().read(descriptor, nbytes, offset)
        if offset == 0 and os.fstat(descriptor).st_ino == self.path.stat().st_ino:
            with self.path.open("r+b") as file:
                file.write(bytes(self.path.stat().st_size))
        return data


@pytest.mark.parametrize("name", ["text/notes.txt", "photo.jpg"])
def test_a_file_rewritten_in_place_while_it_is_packed_publishes_nothing(folder, tmp_path, name):
    def give_up(error: OSError) -> None:
        raise error

    reader = Rewriting(folder / name)
    listing = list_folder(folder)
    with pytest.raises(errors.DatasetChangedError, match=name):
        pack_listed(
            folder,
            listing,
            tmp_path / "cats.zip",
            listed_ns=1,
            watch=Watch(),
            retry=give_up,
            reader=reader,
        )
    assert not (tmp_path / "cats.zip").exists()


@pytest.mark.parametrize("change", ["add", "remove", "rename", "grow"])
def test_every_change_is_seen(folder, tmp_path, change):
    archive = pack(folder, tmp_path / "cats.zip")
    target = folder / "text/notes.txt"
    if change == "add":
        put(folder / "text/new.txt", b"new")
    elif change == "remove":
        target.unlink()
    elif change == "rename":
        target.rename(folder / "text/other.txt")
    else:
        put(target, FILES["text/notes.txt"] + b"more")
    pack(folder, archive)
    with zipfile.ZipFile(archive) as z:
        assert {n: z.read(n) for n in z.namelist()} == content_of(folder)


def test_a_damaged_archive_gives_nothing_to_the_next(folder, tmp_path):
    archive = pack(folder, tmp_path / "cats.zip")
    good = archive.read_bytes()
    at = good.index(FILES["photo.jpg"][:100])
    small = good.index(b"cats/") + 300
    bad = bytearray(good)
    bad[small] ^= 1
    bad[at] ^= 1
    archive.write_bytes(bad)
    put(folder / "text/new.txt", b"new")
    pack(folder, archive)
    with zipfile.ZipFile(archive) as z:
        assert {n: z.read(n) for n in z.namelist()} == {**FILES, "text/new.txt": b"new"}


def test_a_file_that_changes_meanwhile_publishes_nothing(folder, tmp_path):
    archive = pack(folder, tmp_path / "cats.zip")
    before = archive.read_bytes()

    def give_up(error: OSError) -> None:
        raise error

    put(folder / "new.txt", b"")
    listing = list_folder(folder)
    put(folder / "new.txt", b"grown")
    with pytest.raises(errors.DatasetChangedError, match=r"new\.txt"):
        pack_listed(folder, listing, archive, listed_ns=1, watch=Watch(), retry=give_up)
    assert archive.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cats", "cats.zip"]


def test_somebody_elses_archive_is_never_replaced(folder, tmp_path):
    archive = tmp_path / "cats.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("thesis.txt", "years")
    before = archive.read_bytes()
    with pytest.raises(errors.DestinationTakenError, match="was not packed by colabkit"):
        pack(folder, archive)
    assert archive.read_bytes() == before


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        ("cats.tar", "does not end in .zip. Name it 'cats.zip'."),
        ("cats/inside.zip", "would lie in the folder"),
        ("nowhere/cats.zip", "There is no folder"),
    ],
)
def test_a_wrong_archive_is_refused(folder, tmp_path, archive, words):
    with pytest.raises(errors.ColabKitError, match=words):
        pack(folder, tmp_path / archive)


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EACCES, "see that it may be read"), (errno.EOPNOTSUPP, "Google's own documents")],
)
def test_the_file_that_cannot_be_read_is_named(folder, tmp_path, monkeypatch, number, words):
    opened = FolderReader.open

    def refuse(reader, path):
        if path.name == "notes.txt":
            raise OSError(number, os.strerror(number), str(path))
        return opened(reader, path)

    monkeypatch.setattr(FolderReader, "open", refuse)
    with pytest.raises(errors.StorageError, match=words) as caught:
        pack(folder, tmp_path / "cats.zip")
    assert f"{folder}/text/notes.txt cannot be read" in caught.value.message
    assert not (tmp_path / "cats.zip").exists()


def test_a_file_that_goes_away_is_named(folder, tmp_path, monkeypatch):
    opened = FolderReader.open

    def go_away(reader, path):
        path.unlink()
        return opened(reader, path)

    monkeypatch.setattr(FolderReader, "open", go_away)
    with pytest.raises(errors.DatasetChangedError):
        pack(folder, tmp_path / "cats.zip")


def test_a_name_that_is_no_utf8_is_refused_with_what_it_reads(folder, tmp_path, cache):
    (folder / os.fsdecode("数据.jpg".encode("gbk"))).write_bytes(b"x")
    with pytest.raises(errors.ArgumentError, match=r"in gb18030 it reads '数据\.jpg'"):
        pack(folder, tmp_path / "cats.zip")
    assert not (tmp_path / "cats.zip").exists()
    # A copy keeps the name as it is.
    made = colabkit.dataset(folder, progress=False)
    assert content_of(made) == content_of(folder)


def test_links_in_a_circle_are_refused(folder, tmp_path):
    (folder / "there").symlink_to("back")
    (folder / "back").symlink_to("there")
    with pytest.raises(errors.UnsafeLinkError):
        pack(folder, tmp_path / "cats.zip")


TWINS = {"A.jpg": b"1", "a.jpg": b"2", "\u00e4": b"3", "a\u0308": b"4", "x\\y": b"5", "a:1": b"6"}


def test_what_is_packed_is_taken_back_as_it_is(tmp_path, cache):
    folder = make_folder(tmp_path / "twins", {**TWINS, "line\nend": b"7", " ": b"8", "~$x": b"9"})
    (folder / "empty/inside").mkdir(parents=True)
    made = colabkit.dataset(pack(folder, tmp_path / "twins.zip"), progress=False)
    assert content_of(made) == content_of(folder)
    assert (made / "empty/inside").is_dir()


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(errors.DatasetNotFoundError, match="There is no"):
        pack(tmp_path / "cats", tmp_path / "cats.zip")
    put(tmp_path / "file", b"")
    with pytest.raises(errors.ArgumentError, match="is not a folder"):
        pack(tmp_path / "file", tmp_path / "cats.zip")


def test_dataset_packs_once_and_uses_the_archive_from_then_on(folder, tmp_path, cache, capsys):
    made = colabkit.dataset(folder, pack=True)
    assert content_of(made) == FILES
    archive = tmp_path / "cats.packed.zip"
    assert f"Packed {len(FILES)} files" in capsys.readouterr().out
    before = archive.stat().st_ino
    assert colabkit.dataset(folder) == made
    assert "is there already" in capsys.readouterr().out
    put(folder / "new.txt", b"new")
    assert content_of(colabkit.dataset(folder)) == {**FILES, "new.txt": b"new"}
    said = capsys.readouterr().out
    assert "of them taken from the one before" in said
    assert archive.stat().st_ino != before


def test_a_damaged_pack_is_told_what_it_is_and_how_to_be_rid_of_it(folder, tmp_path, cache):
    colabkit.dataset(folder, pack=True, progress=False)
    archive = tmp_path / "cats.packed.zip"
    with zipfile.ZipFile(archive) as packed:
        largest = max(packed.infolist(), key=lambda info: info.compress_size)
    data = bytearray(archive.read_bytes())
    data[largest.header_offset + 200] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(errors.ArchiveCorruptError, match="Delete it and run this cell") as caught:
        colabkit.dataset(folder, refresh=True, progress=False)
    assert str(archive) in caught.value.message
    archive.unlink()
    assert content_of(colabkit.dataset(folder, refresh=True, progress=False)) == FILES


@pytest.mark.parametrize("members", [None, "*.txt"])
def test_packing_what_was_copied_before_keeps_the_copy(folder, cache, capsys, members):
    made = colabkit.dataset(folder, members=members)
    before, content = inodes_of(made), content_of(made)
    capsys.readouterr()
    assert colabkit.dataset(folder, members=members, pack=True) == made
    said = capsys.readouterr().out
    assert "Packed" in said
    assert "is there already" in said
    assert "changed" not in said
    assert (inodes_of(made), content_of(made)) == (before, content)
    assert colabkit.dataset(folder, members=members) == made
    assert "is there already" in capsys.readouterr().out
    for file in folder.rglob("*.txt"):
        put(file, b"changed since")
    colabkit.dataset(folder, members=members)
    assert "its source has changed" in capsys.readouterr().out
    assert content_of(made) != content


def test_the_command_line_packs(folder, tmp_path, capsys):
    archive = tmp_path / "cats.zip"
    assert main(["pack", str(folder), str(archive)]) == 0
    assert zipfile.is_zipfile(archive)
    assert f"into {archive}" in capsys.readouterr().out
    assert main(["pack", str(folder), str(tmp_path / "cats.tar")]) == 1
    assert "does not end in .zip" in capsys.readouterr().err
