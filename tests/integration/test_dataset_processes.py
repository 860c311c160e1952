"""Several processes and one dataset: one works, others wait, and nothing in use is deleted."""

from __future__ import annotations

import os

import pytest

import colabkit
from colabkit import errors
from tests.integration.making_datasets import Caller
from tests.unit.datasets.sources import (
    content_of,
    inodes_of,
    make_folder,
    make_zip,
    put,
    some_files,
    wait_until,
)

FILES = {f"{n:05}.bin": os.urandom(3000) for n in range(4000)}


def test_of_two_processes_one_works_and_the_other_waits(tmp_path):
    archive, dest = make_zip(tmp_path / "a.zip", FILES), tmp_path / "out"
    callers = [Caller(archive, dest, progress=True) for _ in range(3)]
    for caller in callers:
        caller.go()
    said = [" ".join(caller.lines_until_done()) for caller in callers]
    assert sum("Unpacked 4,000 files" in words for words in said) == 1
    assert sum("is there already" in words for words in said) == 2
    assert content_of(dest) == FILES
    for caller in callers:
        caller.end()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    archive, dest = make_zip(tmp_path / "a.zip", FILES), tmp_path / "out"
    caller = Caller(archive, dest)
    caller.go()
    # Where nobody looks for a while, it is whole by then.
    wait_until(lambda: (tmp_path / ".colabkit/out/work/journal").exists() or dest.exists())
    caller.kill()
    colabkit.dataset(archive, dest, progress=False)
    assert content_of(dest) == FILES


def test_what_a_process_uses_outlives_the_new_version(tmp_path):
    archive, dest = make_zip(tmp_path / "a.zip", some_files()), tmp_path / "out"
    user = Caller(archive, dest)
    user.go()
    user.lines_until_done()
    old = inodes_of(dest)
    descriptor = os.open(dest, os.O_RDONLY)
    try:
        make_zip(archive, {"new.txt": b"new"})
        colabkit.dataset(archive, dest, progress=False)
        assert content_of(dest) == {"new.txt": b"new"}
        trash = tmp_path / ".colabkit/.trash"
        # What was staged is deleted in the background, what is used is not.
        wait_until(lambda: len(list(trash.iterdir())) == 1)
        (kept,) = trash.iterdir()
        assert inodes_of(kept) == old
        user.end()
        put(archive, make_zip(tmp_path / "b.zip", {"newer.txt": b""}).read_bytes())
        colabkit.dataset(archive, dest, progress=False)
        wait_until(lambda: not any(trash.iterdir()))
    finally:
        os.close(descriptor)


def test_eviction_is_asked_for_and_takes_the_longest_unused_that_nobody_uses(tmp_path, monkeypatch):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path))
    sources = {
        name: make_folder(tmp_path / name, {f"{n}": b"x" * 50_000 for n in range(4)})
        for name in ("used", "oldest", "newer", "wanted")
    }
    user = Caller(sources["used"], None, cache=tmp_path)
    user.go()
    user.lines_until_done()
    made = {}
    for name in ("oldest", "newer"):
        caller = Caller(sources[name], None, cache=tmp_path)
        caller.go()
        caller.lines_until_done()
        caller.end()
        (made[name],) = (tmp_path / "datasets").glob(f"{name}-*")
    (made["used"],) = (tmp_path / "datasets").glob("used-*")
    real = os.statvfs

    def nearly_full(path):
        # As many bytes are free as two datasets take less the ones that are there.
        there = sum(folder.is_dir() for folder in made.values())
        facts = real(path)
        fields = list(facts)
        fields[4] = (250_000 if there < 3 else 150_000) // facts.f_frsize
        return os.statvfs_result(fields)

    monkeypatch.setattr("os.statvfs", nearly_full)
    with pytest.raises(errors.DiskFullError, match="evict=True") as caught:
        colabkit.dataset(sources["wanted"], progress=False)
    assert caught.value.free_bytes < caught.value.needed_bytes
    assert all(folder.is_dir() for folder in made.values())
    colabkit.dataset(sources["wanted"], progress=False, evict=True)
    assert {name for name, folder in made.items() if folder.is_dir()} == {"used", "newer"}
    user.end()
