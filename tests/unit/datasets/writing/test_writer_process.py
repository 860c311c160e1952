"""Processes that write small files do what the calling thread would do, and never outlive it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zlib
from pathlib import Path

import psutil
import pytest

from colabkit.datasets import open_source, plan_archive, unpack
from colabkit.errors import ArchiveCorruptError, StorageError
from tests.unit.datasets.building import DEFLATE, ZipMember, raw_tar, raw_zip, tar_entry, tree

COUNT = 6000
FILES = {f"{n % 30}/{n:05}": b"%d," % n * (n % 200) for n in range(COUNT)}


def children() -> list[psutil.Process]:
    return [c for c in psutil.Process().children() if "small_files.py" in " ".join(c.cmdline())]


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
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert unpack_into(build(), tmp_path) == FILES
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


def test_a_file_that_cannot_be_written_is_named_by_a_process(tmp_path):
    path = list(FILES)[-1]
    (tmp_path / "into" / path).mkdir(parents=True)
    with pytest.raises(StorageError) as caught:
        unpack_into(zipped(), tmp_path)
    assert caught.value.path.endswith(path)


PROGRAM = """
import pathlib, sys
from colabkit.datasets import open_source, plan_archive, unpack
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
        _, alive = psutil.wait_procs(writers, timeout=20)
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
