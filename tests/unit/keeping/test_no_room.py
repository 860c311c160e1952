"""A full disk and a place asked for twice: each is said in a sentence, and the rest goes on."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import time

import pytest

import colabkit
from colabkit.errors import ArgumentError, DiskFullError, StorageError
from colabkit.keeping import kept as kept_module
from colabkit.keeping import settling, staging
from colabkit.storage import LocalVolume

LARGE = 300_000


def test_a_full_disk_is_said_once_holds_nothing_else_up_and_is_forgotten(
    machine, monkeypatch, capfd
):
    monkeypatch.setattr(staging, "_cloned", lambda *_: False)
    kept = machine.keep()
    machine.put("last.pkl", b"\x80\x02" * LARGE)
    kept.flush()
    full = shutil._ntuple_diskusage(10**9, 10**9 - LARGE, LARGE)
    capfd.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: full)
        machine.put("last.pkl", b"\x80\x03" * LARGE)
        machine.put("log.txt", "1")
        machine.put("linked.pkl", b"\x80\x04" * LARGE)
        for _ in range(3):
            kept._opened.keeper.hurry()
            machine.rounds(kept)
        kept_now = set(kept.hashes)
        assert kept_now >= {"log.txt", "linked.pkl"}
        assert isinstance(kept.status.error, OSError)
        said = capfd.readouterr().out
        assert said.count("cannot be kept at the moment: This machine's disk has 0 MB free") == 1
    kept._opened.keeper.hurry()
    kept.flush()
    assert capfd.readouterr().out.count("runs is kept again.") == 1
    machine.kill()
    machine.keep()
    assert (machine.folder / "last.pkl").read_bytes() == b"\x80\x03" * LARGE


def test_what_has_no_room_is_never_called_flushed_though_a_log_beside_it_goes_on(
    machine, monkeypatch
):
    monkeypatch.setattr(staging, "_cloned", lambda *_: False)
    monkeypatch.setattr(kept_module, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(kept_module, "_PATIENCE_S", 0.0)
    kept = machine.keep()
    machine.put("last.pkl", b"\x80\x02" * LARGE)
    kept.flush()
    lines = itertools.count()

    def full(_):
        machine.put("log.txt", str(next(lines)))
        return shutil._ntuple_diskusage(10**9, 10**9 - LARGE, LARGE)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", full)
        machine.put("last.pkl", b"\x80\x03" * LARGE)
        machine.put("log.txt", "begins")
        with pytest.raises(StorageError, match="disk has 0 MB free"):
            kept.flush()
        assert not kept.status.is_safe
    kept.flush()
    assert kept.status.is_safe


def test_a_disk_that_fills_while_a_folder_is_brought_is_said_and_the_rest_comes_after(
    machine, monkeypatch, tree
):
    kept = machine.keep()
    for name in ("a.pkl", "b.pkl"):
        machine.put(name, name.encode() * LARGE)
    kept.flush()
    before = tree(machine.folder)
    machine.kill()
    calls, utime = itertools.count(), os.utime

    def fills(*args, **options):
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        utime(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", fills)
        with pytest.raises(DiskFullError, match=r"pkl could not be brought here.* disk is full"):
            machine.keep()
    assert len(list(machine.folder.iterdir())) == 1
    machine.keep()
    assert tree(machine.folder) == before


def test_what_was_unfinished_when_a_slow_write_began_is_waited_for_after_it(machine, monkeypatch):
    monkeypatch.setattr(settling, "FOLDER_REST_S", 0.3)
    monkeypatch.setattr(kept_module, "_PATIENCE_S", 0.4)
    kept = machine.keep()
    write = LocalVolume.write

    def slow(self, name, parts):
        write(self, name, parts)
        time.sleep(0.8)

    monkeypatch.setattr(LocalVolume, "write", slow)
    machine.put("log.txt", "1")
    machine.put("step-20/model.bin", "1")
    kept.flush()
    assert kept.status.is_safe
    assert set(kept.hashes) == {"log.txt", "step-20/model.bin"}


def test_one_place_keeps_one_folder_at_a_time(machine):
    kept = machine.keep()
    machine.put("log.txt", "1")
    for same in (machine.place, str(machine.place), machine.place / "../safe"):
        with pytest.raises(ArgumentError, match=r"safe keeps .*runs already"):
            colabkit.keep(machine.disk / "other", same, progress=False)
    kept.flush()
    kept.close()
    other = colabkit.keep(machine.disk / "other", machine.place, progress=False)
    machine.kept.append(other)
    assert (other / "log.txt").read_text() == "1"


def test_what_is_left_behind_is_said_once_by_whoever_waited(machine, monkeypatch, capfd):
    monkeypatch.setattr(kept_module, "_PATIENCE_S", 0.1)
    kept = machine.keep()
    machine.put("checkpoint-5/training_args.bin", "x")
    for _ in range(2):
        kept.flush()
    said = capfd.readouterr().out
    assert said.count("safe as it is now: checkpoint-5 lacks trainer_state.json.") == 1
