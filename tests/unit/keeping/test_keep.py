"""A kept folder is back on the next machine, whole, and its place holds no more than it must."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest

import colabkit
from colabkit.errors import ArgumentError, CheckpointCorruptError, DiskFullError

LARGE = 300_000


def checkpoint(machine, step, *, size=LARGE):
    for name in ("model.bin", "optimizer.pt", "trainer_state.json"):
        text = f'{{"step": {step}}}' if name.endswith("json") else ""
        content = text.encode() or os.urandom(size)
        machine.put(f"checkpoint-{step}/{name}", content)


def test_what_was_flushed_is_back_on_the_next_machine_bit_by_bit(machine, tree, capfd):
    kept = machine.keep()
    assert "is kept in" in capfd.readouterr().out
    checkpoint(machine, 10)
    machine.put("log.csv", "epoch\n1\n")
    machine.put("deep/er/notes.txt", "a")
    (machine.folder / "newest").symlink_to("checkpoint-10")
    os.utime(machine.folder / "log.csv", ns=(1_000_000_000_123, 1_000_000_000_123))
    (machine.folder / "log.csv").chmod(0o755)
    kept.flush()
    before = tree(machine.folder)
    assert kept.status.is_safe
    machine.kill()
    again = machine.keep()
    assert tree(machine.folder) == before
    assert (machine.folder / "log.csv").stat().st_mtime_ns == 1_000_000_000_123
    assert (machine.folder / "log.csv").stat().st_mode & 0o777 == 0o755
    assert (machine.folder / "newest").readlink() == Path("checkpoint-10")
    said = capfd.readouterr().out
    assert re.search(r"Brought 5 files \(.* kB\) from .*safe, checkpoint-10, saved \d+ s", said)
    assert again.latest("checkpoint-*") == str(machine.folder / "checkpoint-10")
    assert again.latest("nothing-*") is None
    assert os.fspath(again) == str(again) == str(machine.folder)


def test_what_was_not_changed_is_not_sent_again(machine):
    kept = machine.keep()
    checkpoint(machine, 10)
    kept.flush()
    first = kept.status.sent_nbytes
    machine.put("log.csv", "1")
    checkpoint(machine, 20)
    kept.flush()
    assert kept.status.sent_nbytes - first < 2.1 * LARGE
    files = {path.name: path.stat().st_ino for path in (machine.place / "files").iterdir()}
    (machine.folder / "checkpoint-20/model.bin").rename(machine.folder / "copy.bin")
    (machine.folder / "checkpoint-20/model.bin").hardlink_to(machine.folder / "copy.bin")
    os.utime(machine.folder / "log.csv")
    kept.flush()
    assert {n for n in machine.there("files") if n.endswith(".bin")} == {
        n for n in files if n.endswith(".bin")
    }


def test_what_the_trainer_removed_stays_until_the_new_one_is_there_and_goes_then(machine):
    kept = machine.keep(copies=1)
    checkpoint(machine, 10)
    kept.flush()
    for path in (machine.folder / "checkpoint-10").iterdir():
        path.unlink()
    (machine.folder / "checkpoint-10").rmdir()
    kept.flush()
    assert any("checkpoint-10" in name for name in machine.there("files"))
    checkpoint(machine, 20)
    kept.flush()
    kept.flush()
    assert not any("checkpoint-10" in name for name in machine.there("files"))
    assert len(machine.there("versions")) == 1


def test_the_place_holds_no_more_than_its_copies(machine):
    kept = machine.keep(copies=2)
    for number in range(8):
        machine.put("last.pt", os.urandom(LARGE))
        machine.put("log.csv", "x" * number)
        kept.flush()
    assert len(machine.there("versions")) == 2
    assert len([name for name in machine.there("files") if name.startswith("last.")]) == 2
    assert len(machine.there("files")) == 4


def test_what_nobody_names_goes_where_it_is_ours_and_nobodys_any_more(machine):
    kept = machine.keep()
    machine.put("last.pt", b"1" * LARGE)
    kept.flush()
    machine.kill()
    ours = "orphan.g0001-00000009-0123abcd-0.pt"
    others = ("my-own.txt", "under-way.g0009-00000001-0123abcd-0.pt")
    for name in (ours, *others):
        (machine.place / "files" / name).write_text("x")
    kept = machine.keep()
    machine.put("last.pt", b"2" * LARGE)
    kept.flush()
    there = machine.there("files")
    assert ours not in there
    assert set(others) <= set(there)


def test_a_checkpoint_that_lacks_a_file_is_neither_kept_nor_latest(machine):
    kept = machine.keep()
    checkpoint(machine, 10)
    kept.flush()
    machine.put("checkpoint-20/model.bin", os.urandom(LARGE))
    machine.put("checkpoint-20/optimizer.pt", os.urandom(LARGE))
    kept.flush()
    assert kept.latest("checkpoint-*") == str(machine.folder / "checkpoint-10")
    assert kept.status.objections == ("checkpoint-20 lacks trainer_state.json",)
    machine.kill()
    again = machine.keep()
    assert not (machine.folder / "checkpoint-20").exists()
    assert again.latest("checkpoint-*") == str(machine.folder / "checkpoint-10")


def test_a_file_that_is_cut_off_is_not_taken_for_the_newest(machine):
    kept = machine.keep()
    with zipfile.ZipFile(machine.folder / "last.pt", "w") as file:
        file.writestr("data", bytes(LARGE))
    whole = (machine.folder / "last.pt").read_bytes()
    kept.flush()
    (machine.folder / "last.pt").write_bytes(whole[: LARGE // 2])
    kept.flush()
    assert kept.latest("last.pt") is None
    machine.kill()
    again = machine.keep()
    assert (machine.folder / "last.pt").read_bytes() == whole
    assert again.latest("last.pt") == str(machine.folder / "last.pt")


def test_inputs_are_not_kept_until_they_change(machine, tree, capfd):
    machine.put("data.csv", "1,2")
    machine.put("train.py", "pass")
    kept = machine.keep()
    assert "The 2 files that were in runs before count as input, and" in capfd.readouterr().out
    machine.put("train.py", "changed")
    machine.put("out.txt", "1")
    kept.flush()
    machine.kill()
    machine.keep()
    assert tree(machine.folder) == {"train.py": b"changed", "out.txt": b"1"}


def test_a_kernel_that_died_leaves_what_is_newer_here_and_it_is_kept(machine, tree):
    kept = machine.keep()
    machine.put("last.pt", b"1" * LARGE)
    kept.flush()
    kept.end()
    machine.put("last.pt", b"2" * LARGE)
    machine.put("other.txt", b"new")
    again = machine.keep()
    assert (machine.folder / "last.pt").read_bytes() == b"2" * LARGE
    again.flush()
    before = tree(machine.folder)
    machine.kill()
    machine.keep()
    assert tree(machine.folder) == before


def test_what_is_here_and_differs_is_set_aside_not_lost(machine, capfd):
    kept = machine.keep()
    machine.put("last.pt", b"1" * LARGE)
    kept.close()
    machine.kill()
    machine.put("last.pt", b"mine")
    machine.keep()
    assert (machine.folder / "last.pt").read_bytes() == b"1" * LARGE
    assert (machine.disk / "runs.before-1/last.pt").read_bytes() == b"mine"
    assert "What was here and differs is in" in capfd.readouterr().out


def test_a_version_that_is_damaged_is_named_and_the_one_before_taken(machine, capfd):
    kept = machine.keep()
    for number in (1, 2):
        machine.put("last.pt", bytes([number]) * LARGE)
        kept.flush()
    machine.kill()
    newest = max((machine.place / "files").glob("last.*"), key=lambda path: path.name)
    newest.write_bytes(bytes(LARGE))
    machine.keep()
    assert (machine.folder / "last.pt").read_bytes() == b"\1" * LARGE
    assert "A newer version was not taken: last.g0001-00000002" in capfd.readouterr().out
    machine.kill()
    for path in (machine.place / "files").iterdir():
        path.unlink()
    with pytest.raises(CheckpointCorruptError, match="None of the 2 versions"):
        machine.keep()


def test_a_disk_without_room_is_said_before_anything_is_brought(machine, monkeypatch):
    kept = machine.keep()
    machine.put("last.pt", b"1" * LARGE)
    machine.put("log.txt", "1")
    kept.flush()
    machine.kill()
    full = shutil._ntuple_diskusage(10**9, 10**9 - LARGE, LARGE)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: full)
        with pytest.raises(DiskFullError, match="this machine's disk has 0 MB free"):
            machine.keep()
    assert list(machine.folder.iterdir()) == []
    machine.keep()
    assert (machine.folder / "log.txt").read_text() == "1"


def test_thousands_of_small_files_lie_in_a_few_bundles(machine, tree):
    kept = machine.keep()
    for number in range(2000):
        machine.put(f"samples/{number % 10}/{number}.txt", str(number))
    kept.flush()
    assert len(machine.there("files")) < 10
    for number in range(60):
        machine.put(f"samples/0/{number * 10}.txt", f"again {number}")
        kept.flush()
    (machine.folder / "samples/1/1.txt").unlink()
    kept.flush()
    assert len(machine.there("files")) <= 30
    before = tree(machine.folder)
    machine.kill()
    machine.keep()
    assert tree(machine.folder) == before


def test_the_same_cell_run_again_goes_on_and_other_options_begin_anew(machine):
    kept = machine.keep()
    assert machine.keep() is kept
    other = machine.keep(copies=3)
    assert other is not kept
    assert machine.keep(copies=3) is other


def test_a_newer_session_takes_over_and_the_older_one_says_so(machine, capfd):
    kept = machine.keep()
    machine.put("last.pt", b"1" * LARGE)
    kept.flush()
    colabkit.keeping.calls._live.clear()
    machine.next()
    other = machine.keep()
    machine.put("last.pt", b"2" * LARGE)
    other.flush()
    (machine.root / "machine-1/runs/last.pt").write_bytes(b"3" * LARGE)
    with pytest.raises(colabkit.errors.LeaseLostError):
        kept.flush()
    assert "is not kept any more" in capfd.readouterr().out
    assert [name.partition("-")[2][:5] for name in machine.there("versions")] == ["g0001", "g0002"]
    machine.kill()
    machine.keep()
    assert (machine.folder / "last.pt").read_bytes() == b"2" * LARGE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"copies": 0}, "copies is 0"),
        ({"every": "soon"}, "every is 'soon'"),
        ({"every": -1}, "every is -1"),
        ({"skip": 3}, "skip is 3"),
    ],
)
def test_what_cannot_be_meant_is_refused(machine, options, said):
    with pytest.raises(ArgumentError, match=said):
        machine.keep(**options)


def test_a_folder_in_its_own_place_is_refused(machine):
    with pytest.raises(ArgumentError, match="lie in one another"):
        colabkit.keep(machine.place / "runs", machine.place)


def test_latest_finds_what_is_asked_for_by_name_by_path_and_at_any_depth(machine):
    kept = machine.keep()
    path = str(machine.put("run[1]/weights/last.pkl", "x"))
    other = str(machine.put("run1/checkpoint-5/model.txt", "x").parent)
    for pattern in ("run[1]/weights/last.pkl", "**/last.pkl", "run[[]1]/**", "run[1]/*/*.pkl"):
        assert kept.latest(pattern) in {path, str(machine.folder / "run[1]/weights")}, pattern
    for pattern in (path, Path(path), f"{kept}/**/last.pkl", "./run[[]1]/weights/last.pkl"):
        assert kept.latest(pattern) == path, pattern
    for pattern in (kept / "run1/checkpoint-*", "run[0-9]/checkpoint-5", "**/checkpoint-*"):
        assert kept.latest(pattern) == other, pattern
    assert kept.latest("**/first.pkl") is None
    root = machine.put("checkpoint-6/model.txt", "x").parent
    assert kept.latest("**/checkpoint-6") == str(root)


@pytest.mark.parametrize("pattern", ["", ".", "/", "../last.pt", "/content/elsewhere/*.pt"])
def test_a_pattern_that_never_fits_is_an_error_and_no_first_machine(machine, pattern):
    with pytest.raises(ArgumentError, match="fits nothing in"):
        machine.keep().latest(pattern)


def test_a_card_tells_how_far_it_is(machine):
    with machine.keep() as kept:
        machine.put("last.pt", b"1" * LARGE)
        kept.flush()
        assert "1 file, 300.0 kB, last.pt" in repr(kept)
        assert "Kept folder" in kept._repr_html_()
