"""Archives that are not unpacked here are copied, and said; times come out of all that are."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest

import colabkit
from colabkit.errors import ArchiveCorruptError
from tests.abilities import SEVEN_ZIP

HEADS = {
    "new.cpio": b"070701" + b"0" * 104,
    "crc.cpio": b"070702" + b"0" * 104,
    "odc.cpio": b"070707" + b"0" * 70,
    "old.cpio": b"\xc7\x71" + bytes(24),
    "lib.a": b"!<arch>\n" + b" " * 60,
    "old.tar.Z": b"\x1f\x9d\x90" + bytes(90),
    "data.tar.lz": b"LZIP\x01\x0c" + bytes(30),
    "old.packed": b"\x02\x21\x4c\x18" + bytes(30),
    "disk.iso": bytes(0x8001) + b"CD001" + bytes(100),
    "setup.exe": b"MZ" + bytes(5000) + b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(100),
    "rar.exe": b"MZ" + bytes(5000) + b"Rar!\x1a\x07\x01\x00" + bytes(100),
}


def written(path: Path, data: bytes) -> Path:
    """Writes a file that was not changed just now: nobody waits whether it still grows."""
    path.write_bytes(data)
    os.utime(path, (10**9, 10**9))
    return path


@pytest.mark.parametrize("name", HEADS)
def test_an_archive_that_is_not_read_is_copied_and_said(tmp_path, cache, capsys, name):
    source = written(tmp_path / name, HEADS[name])
    made = colabkit.dataset(source, progress=False)
    assert [path.name for path in made.iterdir()] == [name]
    assert (made / name).read_bytes() == HEADS[name]
    said = capsys.readouterr().out
    assert said.startswith(f"{name} is a")
    assert "copied as it is" in said
    assert ("7z x" if name.endswith(".exe") else "bsdtar -xf") in said


def test_one_that_is_called_an_archive_is_an_error_that_says_what_it_is(tmp_path, cache):
    source = written(tmp_path / "old.tar.lz4", HEADS["old.packed"])
    with pytest.raises(ArchiveCorruptError, match="packed by lz4 -l"):
        colabkit.dataset(source, progress=False)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        pytest.param(name, data, said, id=f"{number}")
        for number, (name, data, said) in enumerate(
            (
                ("a.tar", HEADS["new.cpio"], "cpio archive: for its files run !bsdtar"),
                ("a.zip", HEADS["disk.iso"], "CD image: for its files run !bsdtar"),
                ("a.cpio.gz", gzip.compress(HEADS["odc.cpio"]), "cpio archive, packed with gz"),
                ("a.tar.gz", gzip.compress(HEADS["new.cpio"] * 9), "cpio archive, packed with gz"),
                ("a.csv.gz", gzip.compress(b"0707,1\n"), "one file packed with gz"),
                ("a.zip", b'<?xml version="1.0"?><Error><Code>AccessDenied', "a server answered"),
                ("b.zip", b'\n{"error": "Repository not found"}', "a server answered"),
                ("a.tgz", b"\n<!DOCTYPE html><title>Virus scan warning", "a web page"),
                ("a.zip", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
                ("a.zip", bytes(100_000), "downloaded or uploaded whole"),
            )
        )
    ],
)
def test_what_is_called_an_archive_and_is_another_thing_is_named(tmp_path, cache, name, data, said):
    with pytest.raises(ArchiveCorruptError, match=said):
        colabkit.dataset(written(tmp_path / name, data), progress=False)


def test_several_of_them_are_said_in_one_sentence(tmp_path, cache, capsys):
    for number in range(3):
        written(tmp_path / f"{number}.cpio", HEADS["new.cpio"])
    colabkit.dataset(f"{tmp_path}/*.cpio", progress=False)
    assert capsys.readouterr().out.startswith("0.cpio is a cpio archive, as 2 more are, ")


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.csv", b"0707,1\n"), ("run.exe", b"MZ" + bytes(5000)), ("x.bin", b"CD001" + bytes(40000))],
)
def test_of_other_files_nothing_is_said(tmp_path, cache, capsys, name, data):
    colabkit.dataset(written(tmp_path / name, data), progress=False)
    assert capsys.readouterr().out == ""


def test_times_come_out_of_a_7z_as_7z_gives_them(tmp_path, cache):
    SEVEN_ZIP.require()
    pytest.importorskip("py7zr")
    folder = tmp_path / "in"
    folder.mkdir()
    for name, text in (("one.txt", "1"), ("none.txt", "")):
        (folder / name).write_text(text)
    subprocess.run(["touch", "-d", "2011-12-13 14:15:16", *folder.iterdir()], check=True)
    archive = tmp_path / "a.7z"
    subprocess.run(["7z", "a", archive, "."], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    other = tmp_path / "other"
    command = ["7z", "x", f"-o{other}", archive]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert _times(colabkit.dataset(archive, progress=False)) == _times(other)


def _times(folder: Path) -> dict[str, float]:
    return {path.name: path.stat().st_mtime for path in folder.iterdir()}
