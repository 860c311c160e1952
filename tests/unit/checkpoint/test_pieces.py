"""Tensors of which several processes hold pieces: written by each, whole for every reader."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from colabkit.checkpoint import CheckpointStore, Cut, PartSaver, RunFolder, company, snapshot
from colabkit.checkpoint.parts import Part
from colabkit.checkpoint.pieces import fault_in
from colabkit.errors import CheckpointCorruptError, CheckpointWriteError
from colabkit.storage import Files, LocalVolume, volume_at
from tests import format_reader
from tests.unit.checkpoint.crew import (
    Full,
    Mortal,
    MortalVolume,
    live,
    named_shards,
    newest,
    ranks_in,
    shards,
    taken_over,
)
from tests.unit.checkpoint.numpy_backend import NumpyBackend
from tests.unit.checkpoint.piece_crew import FORMS, PieceCrew, loaded_pieces, whole
from tests.unit.checkpoint.test_damage import rewritten

SOAK = bool(os.environ.get("COLABKIT_SOAK"))


@pytest.fixture(autouse=True)
def small_tensors(monkeypatch):
    """Lets tensors of a few bytes be copied meanwhile, and the dead be given up at once."""
    monkeypatch.setattr(snapshot, "AT_ONCE_BYTES", 1)
    monkeypatch.setattr(snapshot, "_STEADY_BYTES", 1)
    monkeypatch.setattr(company, "_GRACE_S", 0.0)


@pytest.fixture
def crew(tmp_path):
    made = PieceCrew(tmp_path / "run", [Files(), Files(), Files()])
    made.open()
    yield made
    made.close()


HALVES = [((0, 0), (2, 3), "a"), ((2, 0), (2, 3), "b")]
CORNERS = [
    ((0, 0), (3, 2), "a"),
    ((0, 2), (3, 1), "b"),
    ((3, 0), (1, 2), "c"),
    ((3, 2), (1, 1), "d"),
]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (HALVES, ""),
        (HALVES[::-1], ""),
        (CORNERS, ""),
        ([((0, 0), (4, 3), "a")], ""),
        (HALVES[:1], "no file holds 2 to 4 of dimension 0"),
        (HALVES[1:], "no file holds 0 to 2 of dimension 0"),
        (CORNERS[:3], "no file holds 2 to 3 of dimension 1"),
        ([*HALVES, ((2, 0), (2, 3), "c")], "b and c hold one place"),
        ([HALVES[0], ((1, 0), (3, 3), "c")], "a and c overlap along dimension 0"),
        ([HALVES[0], ((2, 0), (3, 3), "c")], "c leads outside of [4, 3]"),
        ([*HALVES, ((4, 0), (0, 3), "c")], "an empty piece"),
        ([((0,), (4,), "a")], "another number of dimensions"),
    ],
)
def test_pieces_are_one_tensor_where_they_cover_each_place_once(pieces, words):
    assert words in fault_in((4, 3), pieces)
    assert bool(words) == bool(fault_in((4, 3), pieces))


def test_each_writes_its_pieces_from_the_first_save_on_and_one_process_reads_them(crew):
    for step in (1, 2, 3):
        assert crew.save(step)
        assert loaded_pieces(crew.root) == step
        assert ranks_in(newest(crew.root)) == {0, 1, 2}
    rows = [each for each in newest(crew.root).tensors if each.key == "wide"]
    assert [(e.box.whole, e.box.offset, e.spec.shape) for e in rows] == [
        ((7, 4), (0, 0), (3, 4)),
        ((7, 4), (3, 0), (3, 4)),
        ((7, 4), (6, 0), (1, 4)),
    ]
    assert sum(each.key == "short" for each in newest(crew.root).tensors) == 2
    assert {*shards(crew.root)} == named_shards(crew.root)


def test_the_page_of_the_format_tells_how_to_read_them(crew):
    crew.save(1)
    found = format_reader.read(crew.root, format_reader.names(crew.root)[0])["model"]
    for name in FORMS:
        assert np.array_equal(found[name], whole(name, 1))


def test_only_a_checkpoint_that_holds_pieces_has_the_second_format(crew):
    crew.save(1)
    assert b'"format":2' in newest_manifest(crew.root).read_bytes()
    crew.company.part("a test says so")
    crew.save(2)
    assert b'"format":1' in newest_manifest(crew.root).read_bytes()


def newest_manifest(root: Path) -> Path:
    return root / "checkpoints" / f"{CheckpointStore(LocalVolume(root)).names()[0]}.json"


def test_pieces_that_do_not_change_are_not_written_again(crew):
    for step in (1, 2, 3):
        crew.save(step)
    frozen = {each.shard for each in newest(crew.root).tensors if each.key == "frozen"}
    assert len(frozen) == 3
    for step in (4, 5):
        crew.save(step)
        assert loaded_pieces(crew.root) == step
    assert frozen == {each.shard for each in newest(crew.root).tensors if each.key == "frozen"}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_another_number_of_processes_goes_on_with_the_folder(size, crew, tmp_path):
    for step in (1, 2):
        crew.save(step)
    crew.close()
    others = PieceCrew(tmp_path / "run", [Files()] * size)
    others.open()
    for step in (3, 4):
        assert others.save(step)
        assert loaded_pieces(tmp_path / "run") == step
    assert ranks_in(newest(tmp_path / "run")) == {*range(size)}
    others.close()


def test_a_flipped_byte_in_a_piece_leaves_the_checkpoint_before(crew):
    crew.save(1)
    crew.save(2)
    file = crew.root / "shards" / next(n for n in newest(crew.root).shards if "-r0002-" in n)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert loaded_pieces(crew.root) == 1
    assert file.name in RunFolder(crew.root).store.verify(str(newest(crew.root).name))


def test_a_missing_piece_leaves_the_checkpoint_before(crew):
    crew.save(1)
    crew.save(2)
    name = next(n for n in newest(crew.root).shards if "-r0001-" in n)
    (crew.root / "shards" / name).unlink()
    assert loaded_pieces(crew.root) == 1


def without_a_row(body):
    body["tensors"] = [row for row in body["tensors"] if row[1] != "wide" or row[6][1] != [3, 0]]


def another_offset(body):
    next(row for row in body["tensors"] if row[1] == "wide")[6][1] = [3, 0]


def another_whole(body):
    next(row for row in body["tensors"] if row[1] == "wide")[6][0] = [7, 5]


HOSTILE = {
    "hole": without_a_row,
    "overlap": another_offset,
    "two forms": another_whole,
    "negative": lambda b: b["tensors"][0][6].__setitem__(1, [-1, 0]),
    "no numbers": lambda b: b["tensors"][0][6].__setitem__(1, "xy"),
    "one more": lambda b: b["tensors"][0][6].append([0, 0]),
    "eight columns": lambda b: b["tensors"][0].append(0),
    "a whole one beside": lambda b: b["tensors"].append(b["tensors"][0][:6]),
    "huge": lambda b: [r[6].__setitem__(0, [2**60, 4]) for r in b["tensors"] if r[1] == "wide"],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_manifest_whose_pieces_are_no_tensor_is_refused(name, crew):
    crew.save(1)
    crew.save(2)

    def change(body):
        body["tensors"].sort(key=lambda row: -len(row))
        HOSTILE[name](body)

    rewritten(crew.root, change)
    store = CheckpointStore(LocalVolume(crew.root))
    with pytest.raises(CheckpointCorruptError):
        store.load(store.names()[0], NumpyBackend())
    assert loaded_pieces(crew.root) == 1


def test_a_hole_is_named_with_its_tensor(crew):
    crew.save(1)
    crew.save(2)
    rewritten(crew.root, without_a_row)
    store = CheckpointStore(LocalVolume(crew.root))
    with pytest.raises(CheckpointCorruptError, match=r"model\.wide is not whole: no file holds 3"):
        store.manifest(store.names()[0])


@pytest.mark.parametrize(
    ("begin", "end"), [(0, 7), (0, 3), (2, 5), (3, 6), (4, 5), (6, 7), (2, 7), (3, 3)]
)
def test_who_needs_a_part_reads_the_files_that_hold_some_of_it_and_verifies_them(begin, end, crew):
    crew.save(1)
    manifest = newest(crew.root)
    wanted = {e.shard for e in manifest.tensors if e.key == "wide" and meets(e, begin, end)}
    reads: list[str] = []
    volume = LocalVolume(crew.root)
    store = CheckpointStore(volume)

    def cut(section, key, spec):
        assert section == "model"
        assert spec.shape == FORMS[key]
        some = Cut((begin, 1), (end - begin, 2), lambda made: ("cut", made))
        return some if key == "wide" else Cut((0, 0), (0, 0), lambda _: "none")

    volume.read = lambda name: reads.append(name) or LocalVolume.read(volume, name)
    model = store.load(manifest.name, NumpyBackend(), cut).sections["model"]
    kind, made = model["wide"]
    assert kind == "cut"
    assert np.array_equal(made.values, whole("wide", 1)[begin:end, 1:3])
    assert model["frozen"] == "none"
    assert np.array_equal(model["scale"].values, np.full(3, 1, np.float32))
    pieces = {name.removeprefix("shards/") for name in reads if "-r0" in name}
    assert pieces == {name for name in wanted if "-r0" in name}
    for name in manifest.shards:
        file = crew.root / "shards" / name
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        if name in pieces:
            with pytest.raises(CheckpointCorruptError, match=name):
                store.load(manifest.name, NumpyBackend(), cut)
        elif "-r0" in name:
            store.load(manifest.name, NumpyBackend(), cut)
        content[-1] ^= 1
        file.write_bytes(content)


def meets(entry, begin: int, end: int) -> bool:
    first = entry.box.offset[0]
    return first < end and begin < first + entry.spec.shape[0] and begin < end


@pytest.mark.parametrize("rank", [0, 1])
def test_a_torn_snapshot_of_one_process_tears_the_whole_and_is_taken_again(rank, crew):
    crew.save(1)
    crew.writers[rank].is_torn = True
    assert crew.save(2)
    assert loaded_pieces(crew.root) == 2
    assert ranks_in(newest(crew.root)) == {0, 1, 2}


def test_what_is_nan_in_a_piece_is_nan_in_the_whole(crew):
    usual = crew.writers[2].train

    def spoiled(step):
        usual(step)
        crew.writers[2].pieces["wide"].values[0] = np.nan

    crew.writers[2].train = spoiled
    assert crew.save(1)
    assert not newest(crew.root).facts.is_finite


def test_pieces_that_leave_a_hole_are_not_published_but_put_together_by_one(crew, caplog):
    crew.writers[1].offset_by["wide"] = 1
    assert crew.save(1)
    assert loaded_pieces(crew.root) == 1
    assert ranks_in(newest(crew.root)) == {0}
    assert "model.wide is not whole: no file holds 3 to 4 of dimension 0" in caplog.text
    assert {*shards(crew.root)} == {*newest(crew.root).shards}


def test_one_that_would_publish_its_pieces_alone_writes_no_checkpoint(crew):
    crew.company._posts.size = 1
    first = crew.writers[0]
    first.offer(1)
    with pytest.raises(CheckpointWriteError, match="not whole"):
        first.saver.flush()
    assert not RunFolder(crew.root).names()
    assert not shards(crew.root)


def test_a_full_disk_of_one_process_costs_no_save_and_leaves_nothing(tmp_path, caplog):
    files = Full()
    crew = PieceCrew(tmp_path / "run", [Files(), files])
    crew.open()
    assert crew.save(1)
    files.is_full = True
    assert crew.save(2)
    assert "process 1: DiskFullError" in caplog.text
    assert loaded_pieces(crew.root) == 2
    assert ranks_in(newest(crew.root)) == {0}
    crew.close()


def test_files_that_the_one_that_publishes_does_not_see_are_in_no_checkpoint(
    tmp_path, monkeypatch, caplog
):
    """Each may find a lease of the session, and write into a folder that only it has."""
    monkeypatch.setattr(company, "_SEEN_S", 0.0)
    elsewhere = LocalVolume(tmp_path / "elsewhere")
    crew = PieceCrew(tmp_path / "run", [Files(), elsewhere])
    crew.open()
    assert crew.save(1)
    assert loaded_pieces(crew.root) == 1
    assert ranks_in(newest(crew.root)) == {0}
    assert "what process 1 has written is not there: model-r0001-" in caplog.text
    crew.close()


class Late(LocalVolume):
    """A folder of a network file system, which keeps what it knows of it for some looks."""

    stale_looks = 0

    def list(self, folder: str) -> dict[str, int]:
        self.stale_looks -= 1
        return {} if self.stale_looks >= 0 else super().list(folder)


def test_files_that_are_seen_late_are_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(company, "_SEEN_LOOK_S", 0.0)
    late = Late(tmp_path / "run")
    crew = PieceCrew(tmp_path / "run", [late, Files()])
    crew.open()
    late.stale_looks = 5
    assert crew.save(1)
    assert late.stale_looks < 0
    assert ranks_in(newest(crew.root)) == {0, 1}
    crew.close()


def test_a_session_that_was_taken_over_publishes_no_pieces_and_leaves_none(crew, tmp_path):
    crew.save(1)
    taken_over(crew, PieceCrew(tmp_path / "run", [Files()]))
    assert loaded_pieces(crew.root) == 1


def test_of_two_sides_that_are_cut_off_none_publishes_what_the_other_has_not_told(
    crew, monkeypatch
):
    """The network is gone, and the disk is not: parts are there that no manifest names."""
    crew.save(1)
    monkeypatch.setattr(company, "DEADLINE_S", 0.05)
    crew.writers[2].saver._posts.post = lambda *_: None
    crew.train(2)
    crew._take(2)
    for writer in crew.writers:
        writer.saver.settle()
    assert crew.writers[0].saver.status().wants_retake
    assert loaded_pieces(crew.root) == 1
    untold = {*shards(crew.root)} - {*newest(crew.root).shards}
    assert any("-r0002-" in each for each in untold)
    newer = PieceCrew(crew.root, [Files(), Files()])
    newer.open()
    assert newer.save(3)
    newer.close()
    assert not untold & {*shards(crew.root)}


def test_one_that_could_not_write_once_writes_again(tmp_path):
    """A network fails for a moment; put together by one, training would wait from then on."""
    files = Full()
    crew = PieceCrew(tmp_path / "run", [Files(), files])
    crew.open()
    for step in (1, 2, 3):
        assert crew.save(step)
        files.is_full = True
        crew.train(step + 10)
        crew._take(step + 10)
        for writer in crew.writers:
            writer.saver.settle()
        assert crew.writers[0].saver.status().wants_retake
        assert loaded_pieces(crew.root) == step
        files.is_full = False
    assert crew.save(4)
    assert loaded_pieces(crew.root) == 4
    assert ranks_in(newest(crew.root)) == {0, 1}
    crew.close()


class Waiting(Files):
    """A disk that is slow for one process: it writes once it is told to."""

    def __init__(self) -> None:
        self.may_write, self.is_asked = threading.Event(), threading.Event()

    def write(self, descriptor: int, data: np.ndarray) -> None:
        self.is_asked.set()
        self.may_write.wait()
        super().write(descriptor, data)


def test_who_is_called_while_it_still_writes_declines_and_tells_of_what_it_was_called_for(tmp_path):
    files = Waiting()
    crew = PieceCrew(tmp_path / "run", [Files(), files])
    crew.open()
    writer, posts = crew.writers[1], crew.desk.of(0)
    call = crew.company.call(crew.writers[0].saver.next_name)
    writer.saver = PartSaver(CheckpointStore(writer.volume), writer.backend, crew.desk.of(1))
    assert writer.saver.begin(call)
    writer.offer(1)
    files.is_asked.wait()
    again = crew.company.call(crew.writers[0].saver.next_name)
    assert not writer.saver.begin(again)
    assert "still writes" in Part.from_text(posts.posted(str(again.name), 1)).problem
    files.may_write.set()
    crew.close()
    told = Part.from_text(posts.posted(str(call.name), 1))
    assert (told.problem, {each.key for each in told.tensors}) == ("", {"wide", "short", "frozen"})
    assert {*told.shards} == {*shards(crew.root)}
    assert posts.posted(str(again.name), 1) is None


def test_a_copy_elsewhere_has_all_pieces(crew, tmp_path):
    crew.save(1)
    crew.save(2)
    manifest = newest(crew.root)
    other = CheckpointStore(LocalVolume(tmp_path / "mirror"))
    other.copy_from(CheckpointStore(LocalVolume(crew.root)), manifest, lambda: None)
    assert loaded_pieces(tmp_path / "mirror") == 2
    assert other.holds(manifest)


def of_bucket(place: str, dies_at: int = -1) -> MortalVolume:
    return MortalVolume(volume_at(place), dies_at)


def of_folder(place: str, dies_at: int = -1) -> Mortal:
    return Mortal(dies_at)


def work_of_one(root: Path | str, doomed: int, dies_at: int, work: Any) -> int:
    """Has one of three processes die at a point of its own; returns how much it has done."""
    files = [work(root, dies_at if rank == doomed else -1) for rank in range(3)]
    live(PieceCrew(root, files), saves=4, loaded=loaded_pieces)
    return files[doomed].count


@pytest.fixture
def places(request, tmp_path):
    """Gives new run folders of a kind."""
    if request.param is of_folder:
        yield lambda name: tmp_path / name
    else:
        yield lambda name: f"memory://{tmp_path.name}/{name}"
        fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize(
    ("work", "places"), [(each, each) for each in (of_folder, of_bucket)], indirect=["places"]
)
@pytest.mark.parametrize("doomed", [0, 1, 2])
def test_whoever_dies_at_whatever_point_the_newest_is_whole_and_the_next_session_sweeps(
    doomed, work, places
):
    """Among the points: before and after its part, and before and after the manifest."""
    points = work_of_one(places("whole"), doomed, -1, work)
    assert points > (40 if doomed == 0 else 10)
    for point in range(doomed, points, 1 if SOAK else 7):
        root = places(f"{point}")
        work_of_one(root, doomed, point, work)
        if doomed:
            # The one that publishes has gone on without it.
            assert loaded_pieces(root) == 4
        crew = PieceCrew(root, [work(root), work(root)])
        crew.open()
        for step in (5, 6):
            assert crew.save(step)
        crew.close()
        assert loaded_pieces(root) == 6
        if work is of_folder:
            # Where a manifest was emptied, and not yet removed, the sweep comes after it.
            crew.open()
            crew.close()
        assert {*shards(root)} == named_shards(root)
