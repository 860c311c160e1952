"""Processes that write small files do what the calling thread would do, and never outlive it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path

import psutil
import pytest

from colabkit.datasets import FileSource, open_source, plan_archive, unpack
from colabkit.errors import ArchiveCorruptError, StorageError
from tests.abilities import UNZIP
from tests.unit.datasets.building import DEFLATE, ZipMember, raw_tar, raw_zip, tar_entry, tree

COUNT = 6000
FILES = {f"{n % 30}/{n:05}": b"%d," % n * (n % 200) for n in range(COUNT)}


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if "small_files" in " ".join(child.cmdline()):
                found.append(child)
    return found


def zipped(**lies: object) -> bytes:
    members = [
        ZipMember(path.encode(), data, DEFLATE if n % 2 else 0)
        for n, (path, data) in enumerate(FILES.items())
    ]
    if lies:
        last = members[-100]
        members[-100] = ZipMember(last.name, last.data, last.method, **lies)  # type: ignore[arg-type]
    return raw_zip(members)


def tarred() -> bytes:
    return raw_tar(*(tar_entry(path.encode(), data) for path, data in FILES.items()))


def unpack_into(archive: bytes, folder: Path, **options: object) -> dict[str, bytes]:
    path, into = folder / "archive", folder / "into"
    into.mkdir(exist_ok=True)
    path.write_bytes(archive)
    source = open_source(path)
    try:
        manifest = unpack(plan_archive(source), source, into, **options)  # type: ignore[arg-type]
    finally:
        source.close()
        assert not children()
    assert {f.path: (f.nbytes, f.crc32) for f in manifest} == {
        name: (len(data), zlib.crc32(data)) for name, data in FILES.items()
    }
    return tree(into)


@pytest.mark.parametrize("build", [zipped, tarred], ids=["zip", "tar"])
def test_many_small_files_come_out_through_processes(tmp_path, build):
    seen: list[int] = []
    found = unpack_into(build(), tmp_path, on_progress=lambda now: seen.append(now.files_done))
    assert found == FILES
    assert seen[-1] == COUNT


@pytest.mark.parametrize("build", [zipped, tarred], ids=["zip", "tar"])
def test_a_killed_process_is_replaced_by_the_thread_that_waits_for_it(tmp_path, build):
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set() and not killed:
            for child in children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
                    killed.append(child.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        # Where its thread gets no turn, all is unpacked before.
        for number in range(50):
            (tmp_path / f"{number}").mkdir()
            assert unpack_into(build(), tmp_path / f"{number}") == FILES
            if killed:
                break
    finally:
        over.set()
        killer.join()
    assert killed


@pytest.mark.parametrize("build", [zipped, tarred], ids=["zip", "tar"])
def test_without_processes_threads_do_the_work(tmp_path, monkeypatch, build):
    monkeypatch.delattr(os, "memfd_create")
    assert unpack_into(build(), tmp_path) == FILES


@pytest.mark.parametrize("build", [zipped, tarred], ids=["zip", "tar"])
def test_what_a_killed_call_left_is_replaced(tmp_path, build):
    for path in list(FILES)[::7]:
        (tmp_path / "into" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "into" / path).write_bytes(b"half of it")
    assert unpack_into(build(), tmp_path) == FILES


@pytest.mark.parametrize("build", [zipped, tarred], ids=["zip", "tar"])
def test_what_is_whole_is_kept(tmp_path, build):
    kept = set(list(FILES)[::2])
    for path in kept:
        (tmp_path / "into" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "into" / path).write_bytes(FILES[path])
    before = {path: (tmp_path / "into" / path).stat().st_ino for path in kept}
    assert unpack_into(build(), tmp_path, done=kept) == FILES
    assert before == {path: (tmp_path / "into" / path).stat().st_ino for path in kept}


def test_a_damaged_member_is_named_by_a_process(tmp_path):
    with pytest.raises(ArchiveCorruptError, match="CRC-32") as caught:
        unpack_into(zipped(crc=7), tmp_path)
    assert caught.value.member == list(FILES)[-100]


@pytest.fixture
def bytes_read_here(monkeypatch) -> list[int]:
    """Returns how many bytes of archives this process has read itself, read by read."""
    found: list[int] = []
    read = FileSource.read

    def counted(self: FileSource, offset: int, nbytes: int) -> bytes:
        found.append(nbytes)
        return read(self, offset, nbytes)

    monkeypatch.setattr(FileSource, "read", counted)
    return found


def test_processes_read_an_archive_on_this_disk_by_themselves(tmp_path, bytes_read_here):
    archive = zipped()
    assert unpack_into(archive, tmp_path) == FILES
    assert sum(bytes_read_here) < len(archive) / 2, "no more than its directory"


def test_an_archive_on_a_mount_is_read_by_one_process_alone(tmp_path, bytes_read_here, monkeypatch):
    monkeypatch.setattr("colabkit.datasets.reading.source.is_slow", lambda path: True)
    archive = zipped()
    assert unpack_into(archive, tmp_path) == FILES
    assert sum(bytes_read_here) >= len(archive)


@pytest.mark.parametrize(
    ("lies", "why"),
    [
        ({"magic": b"PK\x03\x05"}, "is not where the directory says"),
        ({"packed": b"\xff" * 40, "method": DEFLATE}, "cannot be unpacked"),
        ({"nbytes": 7, "method": DEFLATE}, "bytes or more instead of 7"),
    ],
    ids=["header", "data", "size"],
)
def test_what_a_process_doubts_is_judged_by_a_slower_look(tmp_path, lies, why):
    members = [ZipMember(path.encode(), data) for path, data in FILES.items()]
    magic = lies.pop("magic", b"PK\x03\x04")
    facts = {"name": members[-50].name, "data": b"12345678" * 9, **lies}
    members[-50] = ZipMember(**facts)  # type: ignore[arg-type]
    archive = raw_zip(members)
    begin = archive.index(members[-50].name) - 30
    with pytest.raises(ArchiveCorruptError, match=why) as caught:
        unpack_into(archive[:begin] + magic + archive[begin + 4 :], tmp_path)
    assert caught.value.member == list(FILES)[-50]


def test_an_archive_that_is_cut_short_meanwhile_is_damaged(tmp_path):
    path = tmp_path / "archive"
    path.write_bytes(zipped())
    source = open_source(path)
    plan = plan_archive(source)
    (tmp_path / "into").mkdir()
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises((ArchiveCorruptError, StorageError), match=r"cut short|changed while"):
        unpack(plan, source, tmp_path / "into")
    source.close()
    assert not children()


@pytest.mark.parametrize("programs", [["unzip", "-q", "-d"], ["tar", "-xf"]], ids=["zip", "tar"])
def test_files_get_the_times_that_other_programs_give_them(tmp_path, programs):
    original, other = tmp_path / "original", tmp_path / "other"
    for n in range(2000):
        path = original / f"{n % 9}" / f"{n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % n)
        os.utime(path, (10**9, 10**9 + 86_400 * n))
    (original / "large").write_bytes(bytes(9 << 20))
    os.utime(original / "large", (10**9, 10**9))
    other.mkdir()
    archive = tmp_path / ("a.zip" if programs[0] == "unzip" else "a.tar")
    if programs[0] == "unzip":
        UNZIP.require()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(original.rglob("*")):
                packed.write(path, path.relative_to(original))
        subprocess.run([*programs, other, archive], check=True)
    else:
        subprocess.run(["tar", "-cf", archive, "-C", original, "."], check=True)
        subprocess.run([*programs, archive, "-C", other], check=True)
    (tmp_path / "out").mkdir()
    source = open_source(archive)
    unpack(plan_archive(source), source, tmp_path / "out")
    source.close()
    assert times(tmp_path / "out") == times(other)


def times(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_a_file_that_cannot_be_written_is_named_by_a_process(tmp_path):
    path = list(FILES)[-1]
    (tmp_path / "into" / path).mkdir(parents=True)
    with pytest.raises(StorageError) as caught:
        unpack_into(zipped(), tmp_path)
    assert caught.value.path.endswith(path)


PROGRAM = """
import pathlib, sys
from colabkit.datasets import FileSource, open_source, plan_archive, unpack
source = open_source(sys.argv[1])
unpack(plan_archive(source), source, pathlib.Path(sys.argv[2]), on_progress=lambda now: None)
"""


@pytest.mark.parametrize("build", [zipped, tarred], ids=["zip", "tar"])
def test_processes_end_when_their_caller_is_killed(tmp_path, build):
    archive = tmp_path / "archive"
    archive.write_bytes(build())
    for _ in range(3):
        (tmp_path / "out").mkdir()
        caller = subprocess.Popen([sys.executable, "-c", PROGRAM, archive, tmp_path / "out"])
        process = psutil.Process(caller.pid)
        writers: list[psutil.Process] = []
        while not writers and caller.poll() is None:
            writers = process.children()
        caller.kill()
        caller.wait()
        _, alive = psutil.wait_procs(writers, timeout=300)
        assert not alive
        shutil.rmtree(tmp_path / "out")


def test_a_tar_gz_with_large_members_among_small_ones_comes_out(tmp_path):
    archive = tmp_path / "a.tar.gz"
    original = tmp_path / "original"
    for number in range(2500):
        path = original / f"{number % 9}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * (200_000 if number % 100 == 0 else 100))
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        packed.add(original, ".")
    (tmp_path / "out").mkdir()
    source = open_source(archive)
    unpack(plan_archive(source), source, tmp_path / "out")
    source.close()
    assert tree(tmp_path / "out") == tree(original)
