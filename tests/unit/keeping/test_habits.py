"""What trainers do to their folders: links, databases, pointers, logs without end, odd names."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import colabkit
from colabkit.errors import CheckpointCorruptError
from colabkit.keeping import staging, taking

LARGE = 300_000


def test_a_link_to_the_newest_is_the_newest_and_back_wherever_it_pointed_from(machine):
    kept = machine.keep()
    machine.put("checkpoints/epoch=3.pt", b"\x80\x02" * LARGE)
    machine.put("wandb/run-1/logs/debug.log", "one")
    (machine.folder / "checkpoints/last.pt").symlink_to("epoch=3.pt")
    (machine.folder / "best.pt").symlink_to(machine.folder / "checkpoints/epoch=3.pt")
    (machine.folder / "wandb/latest-run").symlink_to("run-1")
    assert kept.latest("last.pt") == str(machine.folder / "checkpoints/last.pt")
    kept.flush()
    machine.kill()
    again = machine.keep()
    for name in ("checkpoints/last.pt", "best.pt"):
        assert (machine.folder / name).is_symlink()
        assert (machine.folder / name).read_bytes() == b"\x80\x02" * LARGE
    assert (machine.folder / "wandb/latest-run/logs/debug.log").read_text() == "one"
    assert again.latest("best.pt") == str(machine.folder / "best.pt")
    assert again.latest("latest-run/logs/*") is None


@pytest.mark.parametrize("is_link", [True, False])
def test_on_a_machine_that_was_overtaken_the_link_leads_to_what_is_newest_now(machine, is_link):
    def save(number):
        machine.put(f"checkpoints/epoch={number}.pkl", b"%d" % number * LARGE)
        last = machine.folder / "last"
        last.unlink(missing_ok=True)
        if is_link or number == 1:
            last.symlink_to(f"checkpoints/epoch={number}.pkl")
        else:
            machine.put("last/checkpoint-2/model.pkl", b"%d" % number * LARGE)

    kept = machine.keep()
    save(1)
    kept.flush()
    machine.kill()
    kept = machine.keep()
    save(2)
    kept.flush()
    machine.number = 0
    machine.kill()
    assert (machine.folder / "last").read_bytes() == b"1" * LARGE
    name = "last" if is_link else "last/checkpoint-2/model.pkl"
    kept = machine.keep()
    assert (machine.folder / name).read_bytes() == b"2" * LARGE
    kept.flush()
    machine.number = 2
    machine.kill()
    machine.keep()
    assert (machine.folder / name).read_bytes() == b"2" * LARGE


def test_a_link_out_of_the_folder_is_said_once(machine, capfd):
    kept = machine.keep()
    (machine.folder / "data").symlink_to("/etc")
    machine.put("a.txt", "a")
    kept.flush()
    machine.put("a.txt", "b")
    kept.flush()
    assert capfd.readouterr().out.count("data in ") == 1


def test_a_link_goes_only_with_what_it_leads_to(machine):
    kept = machine.keep()
    machine.put("epoch=1.pkl", b"1" * LARGE)
    (machine.folder / "last.pkl").symlink_to("epoch=1.pkl")
    kept.flush()
    with (machine.folder / "epoch=2.pkl").open("wb") as file:
        file.write(b"2" * LARGE)
        file.flush()
        (machine.folder / "last.pkl").unlink()
        (machine.folder / "last.pkl").symlink_to("epoch=2.pkl")
        machine.put("log.txt", "2")
        machine.rounds(kept)
        machine.kill()
    machine.keep()
    assert (machine.folder / "log.txt").read_text() == "2"
    assert (machine.folder / "last.pkl").read_bytes() == b"1" * LARGE


def test_a_file_that_names_the_newest_goes_with_it(machine, monkeypatch):
    monkeypatch.setattr(taking, "_VERSION_BYTES", LARGE)
    kept = machine.keep()
    for step in (1, 2):
        machine.put(f"model_{step}.pth", bytes([step]) * LARGE)
        machine.put("last_checkpoint", f"model_{step}.pth")
    kept.flush()
    with (machine.folder / "model_3.pth").open("wb") as file:
        file.write(b"3" * LARGE)
        file.flush()
        machine.put("last_checkpoint", "model_3.pth")
        machine.rounds(kept)
        assert "last_checkpoint names model_3.pth" in str(kept.status.objections)
    kept.flush()
    machine.kill()
    machine.keep()
    named = (machine.folder / "last_checkpoint").read_text()
    assert (machine.folder / named).read_bytes() == b"3" * LARGE


@pytest.mark.parametrize("name", ["last-state", "out/cats-000002-state", "saved/any name"])
def test_a_state_folder_is_a_whole_by_its_name_or_by_what_is_in_it(machine, name):
    kept = machine.keep()
    parts = ("model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl")
    for step in (b"1", b"2"):
        for part in parts[: 4 if step == b"1" else 2]:
            is_weights = part.endswith("tensors")
            machine.put(f"{name}/{part}", b"\2\0\0\0\0\0\0\0{}" if is_weights else step)
        if step == b"2":
            shutil.rmtree(machine.folder / name)
            machine.put(f"{name}/optimizer.bin", b"2")
            machine.rounds(kept)
        else:
            kept.flush()
    machine.kill()
    machine.keep()
    found = {path.name: path.read_bytes() for path in (machine.folder / name).iterdir()}
    assert set(found) == set(parts)
    assert found["optimizer.bin"] == b"1"


def test_a_database_is_taken_with_its_log(machine):
    kept = machine.keep()
    with closing(sqlite3.connect(machine.folder / "study.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE trials (number INTEGER, note TEXT)")
        for number in range(300):
            with database:
                database.execute("INSERT INTO trials VALUES (?, ?)", (number, "x" * 500))
            if number % 100 == 99:
                kept.flush()
        assert (machine.folder / "study.db-wal").exists()
        machine.kill()
    machine.keep()
    with closing(sqlite3.connect(machine.folder / "study.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM trials").fetchone() == (300,)


def test_a_log_that_grows_is_not_sent_again(machine):
    kept = machine.keep()
    changed = 0
    with (machine.folder / "events.out.tfevents.1").open("ab") as log:
        for number in range(12):
            piece = os.urandom(2_000_000 if not number else 40_000)
            log.write(piece)
            log.flush()
            changed += len(piece)
            kept.flush()
        whole = (machine.folder / "events.out.tfevents.1").read_bytes()
        assert kept.status.sent_nbytes <= 1.1 * changed
        assert len(machine.there("files")) <= 20
    machine.kill()
    machine.keep()
    assert (machine.folder / "events.out.tfevents.1").read_bytes() == whole


def test_a_file_that_grew_and_begins_anew_is_sent_whole(machine):
    kept = machine.keep()
    machine.put("log.bin", b"1" * LARGE)
    kept.flush()
    machine.put("log.bin", b"2" * (LARGE + 5))
    kept.flush()
    with (machine.folder / "log.bin").open("ab") as log:
        log.write(b"3" * 5)
    kept.flush()
    machine.kill()
    machine.keep()
    assert (machine.folder / "log.bin").read_bytes() == b"2" * (LARGE + 5) + b"3" * 5


def test_hard_links_empty_files_and_odd_names_come_back(machine, tree):
    kept = machine.keep()
    machine.put("weights/best.pt", b"\x80\x02" * LARGE)
    (machine.folder / "weights/last.pt").hardlink_to(machine.folder / "weights/best.pt")
    names = ["DONE", "A.txt", "a.txt", "con.txt", 'what? "a" <b> | c*:\\.txt', "ünïcode 😀.txt"]
    names += ["new\nline.txt", " spaces ", "deep/" * 20 + "file", "n" * 250, "-rf", "%2F..%2F"]
    for name in names:
        machine.put(name, b"" if name == "DONE" else name.encode())
    machine.put("tail.", b"x")
    kept.flush()
    assert kept.status.sent_nbytes < 1.2 * 2 * LARGE + 20_000
    before = tree(machine.folder)
    machine.kill()
    machine.keep()
    assert tree(machine.folder) == before


def test_a_folder_renamed_while_it_is_sent_arrives_under_its_new_name(machine, tree):
    kept = machine.keep()
    for name in ("model.bin", "optimizer.pt"):
        machine.put(f"checkpoint-1/{name}", b"\x80\x02" * LARGE)
    machine.put("checkpoint-1/trainer_state.json", "{}")
    kept._opened.keeper.next_round(timeout_s=0)
    (machine.folder / "checkpoint-1").rename(machine.folder / "checkpoint-2")
    kept.flush()
    before = tree(machine.folder)
    machine.kill()
    machine.keep()
    assert {name for name in tree(machine.folder) if "checkpoint-2" in name} == set(before)


def test_a_file_that_cannot_be_read_is_named_and_holds_nothing_up(machine, monkeypatch):
    def fails(self, path, *rest):
        if path == "secret.txt":
            raise PermissionError(errno.EACCES, "Permission denied")
        return take(self, path, *rest)

    take = staging.StagingArea._take
    monkeypatch.setattr(staging.StagingArea, "_take", fails)
    kept = machine.keep()
    machine.put("secret.txt", "s")
    machine.put("a.txt", "a")
    machine.rounds(kept)
    assert kept.status.objections == ("secret.txt cannot be read: Permission denied",)
    machine.kill()
    machine.keep()
    assert (machine.folder / "a.txt").read_text() == "a"


def test_a_name_that_only_people_need_and_the_place_refuses_holds_nothing_up(machine):
    machine.place.mkdir()
    (machine.place / "latest").write_text("in the way")
    kept = machine.keep()
    for text in ("1", "2"):
        machine.put("log.txt", text)
        kept.flush()
    machine.kill()
    machine.keep()
    assert (machine.folder / "log.txt").read_text() == "2"


def test_a_first_version_that_never_arrived_whole_is_none(machine, capfd):
    kept = machine.keep()
    machine.put("last.pt", b"\x80\x02" * LARGE)
    kept.flush()
    machine.kill()
    (machine.place / "versions/whole.txt").unlink()
    blob = next((machine.place / "files").iterdir())
    os.truncate(blob, 100)
    kept = machine.keep()
    assert "never arrived whole" in capfd.readouterr().out
    assert kept.latest("last.pt") is None
    machine.put("last.pt", b"\x80\x03" * LARGE)
    kept.flush()
    machine.kill()
    machine.keep(copies=1)
    assert (machine.folder / "last.pt").read_bytes() == b"\x80\x03" * LARGE


def test_one_that_was_whole_and_is_not_any_more_is_an_error(machine):
    kept = machine.keep()
    machine.put("last.pt", b"\x80\x02" * LARGE)
    kept.flush()
    machine.kill()
    os.truncate(next((machine.place / "files").iterdir()), 100)
    with pytest.raises(CheckpointCorruptError, match="None of the 1 versions"):
        machine.keep()
    assert isinstance(machine.folder, Path)


def test_a_trainer_that_deletes_its_folder_when_it_starts_is_kept_in_the_new_one(machine, tree):
    kept = machine.keep()
    machine.put("checkpoint-1/model.bin", b"1" * LARGE)
    machine.put("old.txt", "old")
    kept.flush()
    shutil.rmtree(machine.folder)
    machine.rounds(kept)
    machine.put("checkpoint-2/model.bin", b"2" * LARGE)
    machine.put("new.txt", "new")
    kept.flush()
    kept.flush()
    before = tree(machine.folder)
    machine.kill()
    machine.keep()
    assert tree(machine.folder) == before
    assert set(before) == {"checkpoint-2/model.bin", "new.txt"}


def test_a_folder_renamed_over_another_is_the_new_one_or_the_old_one(machine):
    kept = machine.keep()
    machine.put("checkpoints/last/model.bin", b"1" * LARGE)
    machine.put("checkpoints/last/log.txt", "1")
    kept.flush()
    shutil.rmtree(machine.folder / "checkpoints/last")
    machine.put("log.txt", "the gap")
    kept.flush()
    assert any("last" in name for name in machine.there("files"))
    machine.put("saving.tmp/model.bin", b"2" * LARGE)
    (machine.folder / "saving.tmp").rename(machine.folder / "checkpoints/last")
    machine.put("checkpoints/last/log.txt", "2")
    kept.flush()
    machine.kill()
    machine.keep()
    assert (machine.folder / "checkpoints/last/model.bin").read_bytes() == b"2" * LARGE
    assert (machine.folder / "checkpoints/last/log.txt").read_text() == "2"


def test_a_folder_in_a_kept_folder_may_be_kept_elsewhere_too(machine):
    outer = machine.keep()
    inner = colabkit.keep(machine.folder / "exp", machine.root / "inner", progress=False)
    machine.kept.append(inner)
    machine.put("exp/last.pkl", b"1" * LARGE)
    machine.put("log.txt", "1")
    inner.flush()
    outer.flush()
    machine.kill()
    assert (machine.keep() / "exp/last.pkl").read_bytes() == b"1" * LARGE
    again = colabkit.keep(machine.disk / "alone", machine.root / "inner", progress=False)
    machine.kept.append(again)
    assert (again / "last.pkl").read_bytes() == b"1" * LARGE
