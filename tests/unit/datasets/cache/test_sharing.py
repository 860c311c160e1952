"""Calls that meet: what another call makes, takes away or changes meanwhile is seen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

import colabkit
from colabkit import errors
from colabkit.datasets.cache import room
from colabkit.datasets.cache import slots as use
from colabkit.datasets.cache.slots import Slot
from colabkit.datasets.folders.listing import FolderReader
from colabkit.datasets.origins.resolver import OriginResolver
from colabkit.datasets.reading import downloads, source
from tests.unit.datasets.serving import serving
from tests.unit.datasets.sources import (
    content_of,
    inodes_of,
    make_folder,
    make_zip,
    some_files,
)

FILES = some_files(20)


def test_what_was_made_while_the_source_was_looked_at_is_taken(tmp_path, cache, monkeypatch):
    archive, stamp = make_zip(tmp_path / "a.zip", FILES), OriginResolver.stamp
    made = []

    def stamp_while_another_makes_it(resolver):
        told = stamp(resolver)
        if not made:
            made.append(None)
            made[0] = inodes_of(colabkit.dataset(archive, progress=False))
        return told

    monkeypatch.setattr(OriginResolver, "stamp", stamp_while_another_makes_it)
    assert inodes_of(colabkit.dataset(archive, progress=False)) == made[0]


def test_a_folder_that_is_being_evicted_is_not_returned(tmp_path, cache, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", FILES)
    made = colabkit.dataset(archive, progress=False)
    use.let_go(made)
    moving, go_on, move = threading.Event(), threading.Event(), room.move_to_trash

    def move_slowly(slot, folder):
        moving.set()
        go_on.wait(300)
        return move(slot, folder)

    monkeypatch.setattr(room, "move_to_trash", move_slowly)
    evicter = threading.Thread(
        target=room.evict, args=(Slot(made.parent / "b"),), kwargs={"enough": lambda: False}
    )
    evicter.start()
    assert moving.wait(300)
    threading.Timer(0.3, go_on.set).start()
    got = colabkit.dataset(archive, progress=False)
    evicter.join()
    assert content_of(got) == FILES


@pytest.mark.parametrize("nbytes", [100_000, 40 << 20])
def test_a_file_rewritten_in_place_while_it_is_copied_is_not_published(
    tmp_path, cache, monkeypatch, nbytes
):
    folder = make_folder(tmp_path / "f", {"table.bin": b"A" * nbytes})
    read, wrote = FolderReader.read, threading.Event()

    def read_while_it_is_saved(reader, descriptor, count, offset):
        data = read(reader, descriptor, count, offset)
        if offset == 0 and not wrote.is_set():
            wrote.set()
            with (folder / "table.bin").open("r+b") as file:
                file.write(b"B" * nbytes)
        return data

    monkeypatch.setattr(FolderReader, "read", read_while_it_is_saved)
    with pytest.raises(errors.DatasetChangedError, match=r"table\.bin"):
        colabkit.dataset(folder, progress=False)
    assert not list(cache.glob("f-*"))
    assert content_of(colabkit.dataset(folder, progress=False)) == {"table.bin": b"B" * nbytes}


def test_urls_without_ranges_are_downloaded_side_by_side(tmp_path, cache):
    cats, dogs = {"cats/1": os.urandom(3_000_000)}, {"dogs/1": os.urandom(2_000_000)}
    first, second = make_zip(tmp_path / "1.zip", cats), make_zip(tmp_path / "2.zip", dogs)
    with (
        serving(first.read_bytes(), gives_parts=False) as one,
        serving(second.read_bytes(), gives_parts=False) as other,
    ):
        assert content_of(colabkit.dataset([one, other], progress=False)) == {**cats, **dogs}


@pytest.mark.parametrize("told", [True, False])
def test_a_download_without_room_names_the_disk_that_it_needs_it_on(
    tmp_path, cache, monkeypatch, told
):
    archive = make_zip(tmp_path / "1.zip", FILES)
    if told:
        nearly_full = shutil.disk_usage(tmp_path)._replace(free=9)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly_full)
    else:
        monkeypatch.setattr(downloads, "_piece", lambda *_: no_room())
    with (
        serving(archive.read_bytes(), gives_parts=False, tells_size=told) as url,
        pytest.raises(errors.DiskFullError, match="Set TMPDIR") as caught,
    ):
        colabkit.dataset(url, progress=False)
    assert tempfile.gettempdir() in caught.value.message


def no_room() -> bytes:
    raise OSError(28, "No space left on device")


def test_one_interrupt_is_enough_where_reads_hang(tmp_path, cache, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", {f"{n}": os.urandom(1 << 20) for n in range(40)})
    read, hang, hangs = source.FileSource.read, threading.Event(), threading.Event()

    def read_or_hang(self, offset, nbytes):
        if threading.current_thread().name.startswith("colabkit-read"):
            hangs.set()
            hang.wait()
        return read(self, offset, nbytes)

    def interrupt() -> None:
        hangs.wait(300)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(source.FileSource, "read", read_or_hang)
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            colabkit.dataset(archive, progress=False)
    finally:
        hang.set()
    assert hangs.is_set()


_KILLED = """
import os, sys
from pathlib import Path
from colabkit.datasets.cache import publishing
import colabkit
archive, dest, point = sys.argv[1], sys.argv[2], int(sys.argv[3])
colabkit.dataset
steps = []
def counted(name, real):
    def step(*args, **options):
        if {began!r} in steps or name == {began!r}:
            if len(steps) == point:
                os._exit(9)
            steps.append(name)
        return real(*args, **options)
    return step
for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "open"), (os, "fsync")):
    setattr(owner, name, counted(name, getattr(owner, name)))
from colabkit.datasets import making
real = making.publish
def publish(*args):
    steps.append("publish")
    return real(*args)
making.publish = publish
colabkit.dataset(archive, dest, progress=False)
"""


@pytest.mark.parametrize("before", [False, True])
def test_killed_at_any_step_of_publishing_nothing_is_lost_or_made_twice(tmp_path, before):
    program = _KILLED.format(began="publish")
    killed_at = 0
    for point in range(1, 20):
        folder = tmp_path / f"{point}"
        folder.mkdir()
        dest = folder / "out"
        if before:
            archive = make_zip(folder / "a.zip", {"old": b"old"})
            colabkit.dataset(archive, dest, progress=False)
        archive = make_zip(folder / "a.zip", FILES)
        done = subprocess.run(
            [sys.executable, "-c", program, archive, dest, str(point)], check=False
        )
        assert done.returncode in {0, 9}
        work = folder / ".colabkit/out/work"
        staged = [*work.glob("tree-*"), *([dest] if dest.exists() else [])]
        kept = {name: number for one in staged for name, number in inodes_of(one).items()}
        assert colabkit.dataset(archive, dest, progress=False) == dest
        assert content_of(dest) == FILES
        now = inodes_of(dest)
        assert {name: kept[name] for name in FILES} == now
        assert not work.exists()
        if done.returncode == 0:
            break
        killed_at += 1
    assert killed_at >= (4 if before else 3)
