"""A file or link that names a checkpoint is back only with what it names."""

from __future__ import annotations

import os
import shutil

import pytest

from colabkit.keeping.held import Held
from colabkit.keeping.pointers import named_in
from colabkit.keeping.scanning import scan_folder
from colabkit.keeping.staging import StagingArea
from colabkit.keeping.taking import Taker
from colabkit.keeping.units import WHOLE
from colabkit.keeping.version import Content


class Meddled(StagingArea):
    """A folder in which the trainer goes on right after a file was taken."""

    after = ""

    def take(self, path, stamp, known=None):
        taken = super().take(path, stamp, known)
        if path == self.after:
            self.after = ""
            self.meddle()
        return taken


class Watched:
    """A folder and what the versions of it hold, one after the other."""

    def __init__(self, root):
        self.folder, self.now_s = root / "runs", 100.0
        self.folder.mkdir()
        self.area = Meddled(self.folder, root / "staged")
        self.taker = Taker(self.folder, self.area, WHOLE, (), {}, {}, lambda: self.now_s)
        self.held = Held()

    def put(self, path, text):
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def step(self, number):
        self.put(f"step-{number}/model.bin", f"{number}" * 100)

    def point(self, number):
        (self.folder / "last").unlink(missing_ok=True)
        (self.folder / "last").symlink_to(f"step-{number}")
        self.put("latest", f"step-{number}")

    def scan(self):
        pending = self.taker.scan(self.held)
        self.now_s += 5
        return pending

    def take(self, pending, *, is_urgent=True):
        change = self.taker.take(pending, self.held, is_urgent=is_urgent)
        self.taker.published(change)
        contents = {p: c for p, c in self.held.contents.items() if p not in change.gone}
        for path, each in change.taken.items():
            contents[path] = Content(each.stamp.nbytes, each.stamp.mtime_ns, 0o644, each.hash)
        self.held = Held(contents, change.links)
        return change

    def version(self):
        return self.take(self.scan())


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"step-20", {"step-20"}),
        (b'model_checkpoint_path: "out/step-20"\n', {"step-20"}),
        (b"path=step-20.pt, step-2", {"step-20", "step-2"}),
        (b"my-step-20 step-200 step-20a", set()),
        ("bester Stand: größte Näherung\n".encode(), {"größte Näherung"}),
        (b"epoch=3-step=20.ckpt", {"epoch=3-step=20.ckpt"}),
        (b"\xff\xfe step-2\x00", {"step-2"}),
        (b"20", set()),
    ],
)
def test_a_name_is_found_where_it_stands_by_itself(text, named):
    names = {"step-2", "step-20", "größte Näherung", "epoch=3-step=20.ckpt"}
    assert named_in(text, names) == named


def test_a_number_alone_counts_a_checkpoint_where_its_file_is_called_so(watched):
    watched.put("iter_0000001/model.bin", "1")
    watched.put("latest_checkpointed_iteration.txt", "1\n")
    watched.put("epoch.txt", "2")
    pending = watched.scan()
    watched.put("iter_0000002/model.bin", "2")
    assert set(watched.take(pending).taken) == {
        "iter_0000001/model.bin",
        "latest_checkpointed_iteration.txt",
        "epoch.txt",
    }
    watched.put("latest_checkpointed_iteration.txt", "2")
    pending = watched.scan()
    (watched.folder / "iter_0000002/model.bin").write_text("2 again")
    watched.area.after, watched.area.meddle = "iter_0000002/model.bin", lambda: None
    change = watched.take(pending, is_urgent=False)
    assert not change.taken
    assert "latest_checkpointed_iteration.txt names iter_0000002" in str(watched.taker.objections)


def test_a_small_file_written_again_under_its_very_stamp_is_taken_as_it_is_now(watched):
    def again_in_one_tick():
        before = (watched.folder / "latest").stat()
        watched.put("latest", "step-2")
        os.utime(watched.folder / "latest", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert scan_folder(watched.folder).files == stamps

    watched.step(1)
    watched.step(2)
    watched.put("latest", "step-1")
    stamps = scan_folder(watched.folder).files
    watched.area.after, watched.area.meddle = "latest", again_in_one_tick
    assert "latest" not in watched.version().taken
    assert watched.version().taken["latest"].data == b"step-2"
    assert not watched.version().taken


def test_a_folder_goes_with_none_of_its_files_where_one_was_written_under_its_very_stamp(watched):
    def again_in_one_tick():
        before = (watched.folder / "step-1/model.bin").stat()
        watched.put("step-1/model.bin", "2" * 100)
        os.utime(watched.folder / "step-1/model.bin", ns=(before.st_atime_ns, before.st_mtime_ns))

    watched.step(1)
    watched.put("step-1/vocab.txt", "1")
    watched.area.after, watched.area.meddle = "step-1/model.bin", again_in_one_tick
    assert not watched.version().taken
    assert watched.version().taken["step-1/model.bin"].data == b"2" * 100


def test_what_is_named_only_after_the_look_is_not_in_it_and_neither_is_what_names_it(watched):
    watched.step(1)
    watched.put("latest", "step-1")
    pending = watched.scan()
    watched.step(2)
    watched.put("latest", "step-2")
    change = watched.take(pending)
    assert set(change.taken) == {"step-1/model.bin"}
    assert watched.taker.objections == {"latest": "latest names step-2, which is not taken yet"}
    assert watched.version().taken["latest"].data == b"step-2"


def test_what_came_and_went_while_a_version_was_taken_is_named_by_none(watched):
    def goes_on():
        watched.step(3)
        watched.put("latest", "step-3")

    watched.step(1)
    watched.put("latest", "step-2")
    watched.area.after, watched.area.meddle = "latest", goes_on
    assert set(watched.version().taken) == {"step-1/model.bin"}


@pytest.mark.parametrize("how", ["latest", "last"])
def test_what_a_name_that_stays_speaks_of_stays_with_it(watched, how):
    def point(to):
        (watched.folder / how).unlink(missing_ok=True)
        if how == "last":
            (watched.folder / how).symlink_to(to)
        else:
            watched.put(how, to)

    watched.step(1)
    point("step-1")
    watched.version()
    with (watched.folder / "step-4.bin").open("w") as unfinished:
        unfinished.write("4")
        unfinished.flush()
        watched.step(2)
        shutil.rmtree(watched.folder / "step-1")
        watched.version()
        point("step-4.bin")
        watched.version()
        assert watched.held.contents.keys() >= {"step-1/model.bin", "step-2/model.bin"}
    watched.version()
    watched.version()
    assert watched.held.contents.keys() - {how} == {"step-2/model.bin", "step-4.bin"}


def test_a_name_removed_to_be_written_anew_is_not_missed_at_once(watched):
    watched.step(1)
    watched.point(1)
    watched.version()
    for name in ("latest", "last"):
        (watched.folder / name).unlink()
    watched.step(2)
    pending = watched.taker.scan(watched.held)
    watched.now_s += 1
    watched.take(pending, is_urgent=False)
    assert "latest" in watched.held.contents
    assert watched.held.links == {"last": "step-1"}
    for _ in range(2):
        watched.take(watched.scan(), is_urgent=False)
    assert "latest" not in watched.held.contents
    assert watched.held.links == {}


def test_a_checkpoint_of_a_larger_number_is_newer_though_the_clock_was_put_back(watched):
    watched.step(1)
    watched.version()
    watched.step(2)
    os.utime(watched.folder / "step-2/model.bin", (1_000_000, 1_000_000))
    watched.version()
    shutil.rmtree(watched.folder / "step-1")
    watched.version()
    assert watched.held.contents.keys() == {"step-2/model.bin"}
