"""What may be taken: what nobody writes, and of which nothing is missing."""

from __future__ import annotations

import io
import json
import os
import struct
import time

import numpy as np
import pytest

from colabkit.keeping.formats import is_torn
from colabkit.keeping.held import Held
from colabkit.keeping.open_files import Writers, writers_in
from colabkit.keeping.scanning import Stamp, scan_folder
from colabkit.keeping.settling import Settling, Unit, kinds_of
from colabkit.keeping.staging import ChangedError, StagingArea
from colabkit.keeping.taking import Taker
from colabkit.keeping.units import WHOLE, by_unit, missing_in, unit_of


def a_zip():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(1000))
    return buffer.getvalue()


def safetensors():
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


def hdf5():
    head = b"\x89HDF\r\n\x1a\n" + bytes([2, 8, 8, 0])
    return head + struct.pack("<QQQ", 0, 2**64 - 1, 400) + bytes(364)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("last.pt", a_zip()),
        ("model.safetensors", safetensors()),
        ("weights.h5", hdf5()),
        ("trainer_state.json", b'{"step": 10, "more": [1, 2]}'),
    ],
)
def test_a_file_that_lacks_its_end_is_torn_wherever_it_is_cut(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert not is_torn(path)
    for cut in (0, 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        assert is_torn(path), cut


def test_what_has_no_end_of_its_own_is_never_torn(tmp_path):
    for name, content in (("log.csv", b"a,b\n1,"), ("old.pt", b"\x80\x02pickled"), ("a.txt", b"")):
        (tmp_path / name).write_bytes(content)
        assert not is_torn(tmp_path / name)
    (tmp_path / "metrics.json").write_text('{"loss": 1}\n{"loss": 2}\n')
    assert not is_torn(tmp_path / "metrics.json")


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("checkpoint-500/global_step500/rank0.pt", "checkpoint-500"),
        ("out/checkpoint_3/model.safetensors", "out/checkpoint_3"),
        ("checkpoints/best/model.bin", "checkpoints/best"),
        ("logs/version_0/checkpoints/epoch=1-step=2.ckpt", ""),
        ("runs/exp/weights/last.pt", ""),
        ("checkpoint-best.pt", ""),
        ("checkpoint-cats/run/log.txt", ""),
    ],
)
def test_a_checkpoints_folder_is_known_by_its_name(path, unit):
    assert unit_of(path, WHOLE) == (unit or path)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["model.safetensors", "training_args.bin"], "trainer_state.json"),
        (["model.safetensors", "training_args.bin", "trainer_state.json"], ""),
        (["model.safetensors", "optimizer.bin"], "random_states_0.pkl"),
        (["model.safetensors", "optimizer.bin", "random_states_0.pkl"], ""),
        (["__0_0.distcp", "__1_0.distcp"], ".metadata"),
        (["m-00001-of-00002.safetensors"], "m-00002-of-00002.safetensors"),
        (["m-00000-of-00002.bin", "m-00001-of-00002.bin"], ""),
        (["anything"], ""),
    ],
)
def test_the_signs_of_a_writer_tell_what_is_missing(names, missing):
    assert missing_in(names, "out/checkpoint-20") == missing


class Seen:
    """A folder that is looked at again and again."""

    def __init__(self, folder):
        self.folder, self.now_s = folder, 100.0
        self.settling = Settling(folder, lambda: self.now_s)

    def objection(self, name, *, written=(), sees_all=True, sisters=(), is_urgent=False):
        files = by_unit(scan_folder(self.folder).files, WHOLE)
        units = {each: Unit(each, inside) for each, inside in files.items()}
        self.settling.note(units)
        writers = Writers(frozenset(written), sees_all)
        kinds = kinds_of(sisters)
        return self.settling.objection(units[name], writers, kinds, is_urgent=is_urgent)


@pytest.fixture
def seen(tmp_path):
    return Seen(tmp_path)


def put(folder, name, text="x"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_a_folder_rests_before_it_counts_and_one_that_never_rests_counts_in_the_end(seen):
    for number in range(130):
        put(seen.folder, "checkpoint-1/a.txt", f"{number}")
        objection = seen.objection("checkpoint-1")
        assert bool(objection) == (number < 120), number
        seen.now_s += 1
    put(seen.folder, "checkpoint-2/a.txt")
    assert seen.objection("checkpoint-2") == "checkpoint-2 has just been written"
    seen.now_s += 3
    assert not seen.objection("checkpoint-2")


@pytest.mark.parametrize("sign", ["trainer_state.json", "random_states_0.pkl", ".metadata"])
def test_a_folder_written_anew_under_its_name_waits_for_its_sign(seen, sign):
    def write(name, at_s):
        put(seen.folder, f"last-state/{name}", "[1]")
        os.utime(seen.folder / "last-state" / name, (at_s, at_s))

    for at_s, name in enumerate(("model.bin", "weights.bin", sign)):
        write(name, at_s)
    seen.objection("last-state")
    seen.now_s += 0.3
    assert not seen.objection("last-state")
    write("model.bin", 10)
    assert seen.objection("last-state")
    seen.now_s += 10
    assert seen.objection("last-state") == "last-state has just been written"
    assert not seen.objection("last-state", is_urgent=True)
    write("custom_checkpoint_0.pkl", 12)
    write(sign, 11)
    seen.objection("last-state")
    seen.now_s += 0.3
    assert not seen.objection("last-state")
    write("model.bin", 20)
    seen.objection("last-state")
    seen.now_s += 61
    assert not seen.objection("last-state")


def test_a_signed_folder_counts_at_the_first_look_where_its_disk_knows_that_it_rests(seen):
    for name in ("model.bin", "trainer_state.json"):
        put(seen.folder, f"checkpoint-1/{name}", "[1]")
    # Its time may be older than itself; since when its disk has it as it is cannot be set.
    os.utime(seen.folder / "checkpoint-1/trainer_state.json", (10, 10))
    os.utime(seen.folder / "checkpoint-1/model.bin", (9, 9))
    rests_from_s = (seen.folder / "checkpoint-1/model.bin").stat().st_ctime
    while time.time() < rests_from_s + 0.25:
        time.sleep(0.01)
    assert not seen.objection("checkpoint-1")
    put(seen.folder, "checkpoint-2/model.bin", "[1]")
    assert seen.objection("checkpoint-2") == "checkpoint-2 has just been written"


def test_a_sign_of_a_part_of_a_folder_signs_no_whole(seen):
    put(seen.folder, "checkpoint-1/model/.metadata")
    put(seen.folder, "checkpoint-1/model/__0_0.distcp")
    seen.objection("checkpoint-1")
    seen.now_s += 0.3
    assert seen.objection("checkpoint-1") == "checkpoint-1 has just been written"


def test_what_its_sister_has_is_waited_for_but_not_for_ever(seen):
    put(seen.folder, "step_20/a.txt")
    seen.objection("step_20")
    seen.now_s += 60
    said = seen.objection("step_20", sisters=["a.txt", "rank_3.txt"])
    assert said == "step_20 lacks rank_#.txt, which the one before has"
    seen.now_s += 600
    assert not seen.objection("step_20", sisters=["a.txt", "rank_3.txt"])


def test_a_log_is_taken_while_it_is_open_and_weights_are_not(seen):
    put(seen.folder, "log.txt")
    put(seen.folder, "last.pkl")
    for name in ("log.txt", "last.pkl"):
        assert seen.objection(name, written=[name])
    seen.now_s += 20
    assert not seen.objection("log.txt", written=["log.txt"])
    assert seen.objection("last.pkl", written=["last.pkl"]) == "last.pkl is being written"
    assert seen.objection("last.pkl", written=["last.pkl"], is_urgent=True)


def test_where_not_every_process_can_be_seen_a_file_rests_first(seen):
    put(seen.folder, "last.pkl")
    assert seen.objection("last.pkl", sees_all=False)
    seen.now_s += 3
    assert not seen.objection("last.pkl", sees_all=False)


def test_who_writes_is_found_and_who_reads_is_not(tmp_path):
    put(tmp_path, "deep/a.txt")
    put(tmp_path, "b.txt")
    with (tmp_path / "deep/a.txt").open("a"), (tmp_path / "b.txt").open():
        assert writers_in(tmp_path).paths == {"deep/a.txt"}
    assert writers_in(tmp_path).paths == set()


def test_what_is_removed_or_replaced_after_it_was_taken_is_sent_as_it_was(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    content = os.urandom(400_000)
    (folder / "last.pt").write_bytes(content)
    area = StagingArea(folder, tmp_path / "staged")
    taken = area.take("last.pt", scan_folder(folder).files["last.pt"])
    (folder / "new.pt").write_bytes(bytes(400_000))
    (folder / "new.pt").replace(folder / "last.pt")
    assert b"".join(piece.tobytes() for piece in taken.pieces()) == content


def test_what_is_written_over_in_its_place_is_noticed_and_copied_from_then_on(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    area = StagingArea(folder, tmp_path / "staged")
    (folder / "last.pt").write_bytes(bytes([1]) * 400_000)
    first = area.take("last.pt", scan_folder(folder).files["last.pt"])
    (folder / "last.pt").write_bytes(bytes([2]) * 400_000)
    with pytest.raises(ChangedError):
        list(first.pieces())
    second = area.take("last.pt", scan_folder(folder).files["last.pt"])
    (folder / "last.pt").write_bytes(bytes([3]) * 400_000)
    assert {byte for piece in second.pieces() for byte in set(piece.tolist())} == {2}


def test_a_stamp_that_is_not_the_files_any_more_takes_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    area = StagingArea(tmp_path, tmp_path.parent / "staged")
    with pytest.raises(ChangedError):
        area.take("a.txt", Stamp(1, 1, 1))
    with pytest.raises(ChangedError):
        area.take("b.txt", Stamp(1, 1, 1))


class Overwritten(StagingArea):
    """A folder in which the first file is written over right after it was taken."""

    first = ""

    def take(self, path, stamp, known=None):
        taken = super().take(path, stamp, known)
        if not self.first:
            self.first = path
            (self._folder / path).write_text("[2, 2]")
        return taken


@pytest.mark.parametrize(
    "names",
    [
        ("checkpoint-1/model.bin", "checkpoint-1/trainer_state.json"),
        ("study.db", "study.db-wal"),
        ("study.sqlite3", "study.sqlite3-journal"),
    ],
)
def test_what_counts_only_together_is_taken_as_it_is_at_one_instant(tmp_path, names):
    folder = tmp_path / "runs"
    for name in names:
        put(folder, name, "[1]")
    area, now_s = Overwritten(folder, tmp_path / "staged"), iter(range(0, 1000, 10))
    taker = Taker(folder, area, WHOLE, (), {}, {}, lambda: next(now_s))
    change = taker.take(taker.scan(Held()), Held(), is_urgent=True)
    assert area.first in names
    taken = {path: each.data.decode() for path, each in change.taken.items()}
    assert taken == {name: "[2, 2]" if name == area.first else "[1]" for name in names}


class HalfWritten(StagingArea):
    """A folder whose trainer begins to write the first file anew as it is taken, and pauses."""

    first, file = "", None

    def take(self, path, stamp, known=None):
        if not self.first:
            self.first = path
            self.meddle(self._folder / path)
        return super().take(path, stamp, known)

    def meddle(self, place):
        self.file = place.open("wb")
        self.file.write(b"2" * 100)
        self.file.flush()


class HalfSaved(HalfWritten):
    """One whose trainer has written the first of its files anew, and not yet the others."""

    def meddle(self, place):
        for other in place.parent.iterdir():
            other.unlink()
        place.write_bytes(b"2" * 100)


@pytest.mark.parametrize(
    ("area", "names"),
    [
        (HalfWritten, ["last.pkl"]),
        (HalfWritten, ["step-1/model.pkl", "step-1/other.pkl"]),
        (HalfSaved, ["step-1/model.pkl", "step-1/other.pkl"]),
        (HalfSaved, ["checkpoint-1/model.pkl", "checkpoint-1/training_args.bin"]),
    ],
)
def test_what_is_half_written_anew_as_it_is_taken_is_not_taken(tmp_path, area, names):
    folder = tmp_path / "runs"
    for name in names:
        put(folder, name, "1" * 200)
    if "checkpoint-1" in names[0]:
        put(folder, "checkpoint-1/trainer_state.json", "{}")
    area, now_s = area(folder, tmp_path / "staged"), [0.0]
    taker = Taker(folder, area, WHOLE, (), {}, {}, lambda: now_s[0])
    pending = taker.scan(Held())
    now_s[0] = 10.0
    taken = taker.take(pending, Held(), is_urgent=True).taken
    if area.file is not None:
        area.file.close()
    assert area.first
    assert not taken
    assert len(taker.objections) == 1
