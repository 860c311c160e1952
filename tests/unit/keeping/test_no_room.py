"""A full disk and a place asked for twice: each is said in a sentence, and the rest goes on."""

from __future__ import annotations

import shutil

import pytest

import colabkit
from colabkit.errors import ArgumentError
from colabkit.keeping import kept as kept_module
from colabkit.keeping import staging

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
