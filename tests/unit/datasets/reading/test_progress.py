"""What a call shows: bytes, files and phases, one sentence at the end, or nothing at all."""

from __future__ import annotations

import io
import re
import signal
import tarfile
import threading
import time

import pytest

import colabkit
from colabkit.datasets import TransferProgress, open_source, plan_archive, unpack
from colabkit.datasets.cache.slots import run_with_progress
from colabkit.datasets.reading.progress import Phase, StoppedError, Watch
from colabkit.datasets.reading.retrying import Retrier
from colabkit.notebook import Transfer, TransferBar, folder_card
from tests.unit.datasets.sources import make_folder, make_tar, make_zip, put, some_files

FILES = some_files(20)
NBYTES = sum(map(len, FILES.values()))


@pytest.mark.parametrize("make", [make_zip, make_tar, make_folder])
def test_nothing_is_said_when_progress_is_off(tmp_path, cache, capfd, make):
    source = tmp_path / "source"
    make(source, FILES)
    for _ in range(2):
        colabkit.dataset(source, progress=False)
    if make is make_folder:
        colabkit.dataset(source, progress=False, pack=True)
        colabkit.pack(source, tmp_path / "a.zip", progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("make", "verb"), [(make_zip, "Unpacked"), (make_folder, "Copied")])
def test_one_sentence_with_numbers_ends_it(tmp_path, cache, capsys, make, verb):
    source = tmp_path / "cats.zip"
    make(source, FILES)
    made = colabkit.dataset(source)
    (said,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"{verb} 20 files \([\d.]+ kB\) of cats.zip into {made} in [\d.]+ m?s \([\d.]+ .?B/s\)\.",
        said,
    )
    assert made.parent == cache
    colabkit.dataset(source)
    (said,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"cats.zip is there already: 20 files \([\d.]+ kB\) in {made}, checked in \d+ ms\.", said
    )


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def test_the_bar_tells_phase_bytes_files_rate_and_time_left():
    stream = io.StringIO()
    bar = TransferBar("cats.zip", stream=stream, clock=Clock())
    for done in range(80):
        bar.update(Transfer("unpacking", done * 1000, 100_000, done, 100))
    bar.close()
    last = stream.getvalue().splitlines()[-1]
    assert re.fullmatch(
        r"cats.zip · unpacking · [\d.]+ kB/100.0 kB · \d+/100 files · [\d.]+ .?B/s · .* left", last
    )


def test_every_byte_and_file_is_counted(tmp_path, cache):
    seen = []
    shown = threading.Event()

    class Seen(TransferBar):
        def update(self, now: Transfer) -> None:
            seen.append(now)
            if now.bytes_done == NBYTES:
                shown.set()

    watch = Watch()

    def work() -> int:
        watch.begin(Phase.COPYING, bytes_total=NBYTES, files_total=20)
        for data in FILES.values():
            watch.add(nbytes=len(data), files=1)
        assert shown.wait(300)
        return watch.standing().bytes_done

    retrier = Retrier(watch, location="x")
    done = run_with_progress(work, watch=watch, retrier=retrier, bar=Seen("x", progress=False))
    assert done == NBYTES
    assert seen[-1] == Transfer("copying", NBYTES, NBYTES, 20, 20)


def test_a_tars_bar_only_grows_and_ends_at_its_size(tmp_path):
    archive = tmp_path / "cats.tar"
    with tarfile.open(archive, "w") as packed:
        for number in range(12):
            info = tarfile.TarInfo(f"{number}.bin")
            info.size = 1 << 20
            packed.addfile(info, io.BytesIO(bytes(info.size)))
    into = tmp_path / "into"
    into.mkdir()
    seen: list[TransferProgress] = []
    source = open_source(archive)
    unpack(plan_archive(source), source, into, on_progress=seen.append)
    source.close()
    assert seen[-1].bytes_used == archive.stat().st_size
    assert [one.bytes_used for one in seen] == sorted(one.bytes_used for one in seen)


def test_ctrl_c_comes_out_only_when_the_worker_has_ended():
    watch, trace = Watch(), []

    def work() -> None:
        # The signal finds the caller in the midst of its wait.
        threading.Timer(0.25, signal.pthread_kill, (main, signal.SIGINT)).start()
        watch.stopped.wait(300)
        time.sleep(0.3)
        trace.append("ended")

    main = threading.main_thread().ident
    bar = TransferBar("x", progress=False)
    with pytest.raises(KeyboardInterrupt):
        run_with_progress(work, watch=watch, retrier=Retrier(watch, location="x"), bar=bar)
    assert trace == ["ended"]


def test_an_interrupted_call_stops_its_workers_and_the_next_goes_on(
    tmp_path, cache, monkeypatch, capsys
):
    source = make_folder(tmp_path / "cats", FILES)

    def interrupt(_bar: TransferBar, now: Transfer) -> None:
        if now.phase == Phase.COPYING.value:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TransferBar, "update", interrupt)
        patch.setattr("colabkit.datasets.folders.mirroring._Copier.copy", _copy_slowly)
        with pytest.raises(KeyboardInterrupt):
            colabkit.dataset(source)
    assert "cats: stopped. Run it again: what is whole is kept." in capsys.readouterr().out
    assert len(list(colabkit.dataset(source, progress=False).rglob("*.bin"))) == 20


def _copy_slowly(copier, _file) -> None:
    copier._watch.stopped.wait(300)
    copier._watch.check()
    raise AssertionError


def test_stopped_workers_say_so():
    watch = Watch()
    watch.stopped.set()
    with pytest.raises(StoppedError):
        watch.add(nbytes=1)


class TestCard:
    def test_shows_tree_counts_sizes_and_images(self, tmp_path):
        folder = make_folder(
            tmp_path / "cats", {f"{c}/{n}.png": b"png" for c in "ab" for n in range(9)}
        )
        card = folder_card(folder)
        assert "18 files" in card
        assert card.count("<img") == 6
        assert "a/" in card
        assert "18 .png" in card

    def test_is_what_a_notebook_draws_of_the_result(self, tmp_path, cache):
        made = colabkit.dataset(make_zip(tmp_path / "cats.zip", FILES), progress=False)
        assert "20 files" in made._repr_html_()
        assert "20 files" not in (made / "cats")._repr_html_()

    def test_escapes_every_name(self, tmp_path):
        evil = '<script>alert("1")&\'.png'
        folder = tmp_path / "<b>cats"
        put(folder / "<i>x" / evil, b"png")
        card = folder_card(folder)
        for name in ("<script>", "<b>cats", "<i>x", 'alert("1")'):
            assert name not in card
        assert "&lt;script&gt;" in card

    def test_of_a_folder_that_is_gone_is_none(self, tmp_path, cache):
        made = colabkit.dataset(make_zip(tmp_path / "cats.zip", FILES), progress=False)
        for path in sorted(made.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        made.rmdir()
        assert made._repr_html_() is None
