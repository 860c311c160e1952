"""Exports that are still being written are told from complete ones by size and stability."""

from __future__ import annotations

import os
import threading

import colabkit
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.folders.listing import Listing
from colabkit.datasets.folders.mirroring import PATIENCE_S, STABLE_S, wait_until_stable
from tests.unit.datasets.sources import content_of, make_folder, put

NOW_S = 1_000_000.0


def file(path: str, nbytes: int, age_s: float) -> Member:
    return Member(path, nbytes, None, int((NOW_S - age_s) * 1e9))


class World:
    """Files that another program writes while time passes."""

    def __init__(self, *looks: Member | None) -> None:
        self.now_s = NOW_S
        self.looks = list(looks)

    def pause(self, pause_s: float) -> None:
        self.now_s += pause_s

    def look(self, paths):
        return [self.looks.pop(0) if len(self.looks) > 1 else self.looks[0] for _ in paths]

    def wait_until_stable(self, *files: Member, empty_is_unfinished: bool = False):
        return wait_until_stable(
            Listing(files, []),
            stat_again=self.look,
            pause=self.pause,
            now_s=lambda: self.now_s,
            empty_is_unfinished=empty_is_unfinished,
        )


def test_old_files_are_complete_at_once():
    world = World()
    stable = world.wait_until_stable(file("a", 5, STABLE_S + 1), file("b", 0, 9999.0))
    assert [one.path for one in stable.listing.files] == ["a", "b"]
    assert not stable.unfinished
    assert world.now_s == NOW_S


def test_a_young_file_is_complete_when_it_looks_the_same_a_little_later():
    young = file("a", 5, 0.5)
    world = World(young)
    assert world.wait_until_stable(young).listing.files == [young]
    assert world.now_s == NOW_S + STABLE_S


def test_a_file_that_grows_and_stops_is_taken_as_it_is_in_the_end():
    last = file("a", 7, -3)
    stable = World(file("a", 6, -1), last, last).wait_until_stable(file("a", 5, 0.5))
    assert stable.listing.files == [last]


def test_a_file_that_goes_on_growing_is_left_out_after_a_while():
    grows = [file("a", 5 + n, -n) for n in range(30)]
    world = World(*grows[1:])
    done = file("b", 1, 99)
    stable = world.wait_until_stable(grows[0], done)
    assert stable.listing.files == [done]
    assert stable.unfinished == ("a",)
    assert world.now_s - NOW_S <= PATIENCE_S + STABLE_S


def test_a_file_that_is_gone_is_left_out():
    assert World(None).wait_until_stable(file("a.part", 5, 0.5)).unfinished == ("a.part",)


def test_a_fresh_file_of_no_bytes_is_unfinished_in_a_pattern_only():
    empty = file("a", 0, 60)
    assert World().wait_until_stable(empty, empty_is_unfinished=True).unfinished == ("a",)
    assert World().wait_until_stable(empty).listing.files == [empty]


def test_another_machines_clock_costs_no_wait():
    world = World()
    ahead = file("a", 5, -3600)
    assert world.wait_until_stable(ahead).listing.files == [ahead]
    assert world.now_s == NOW_S


def test_an_export_that_grows_is_waited_for_and_the_next_call_adds_what_was_left_out(
    tmp_path, cache, capsys, monkeypatch
):
    folder = make_folder(tmp_path / "export", {"1.tif": b"one"})
    put(folder / "3.tif", b"")
    os.utime(folder / "3.tif")
    growing = folder / "2.tif"
    growing.write_bytes(b"t")
    stop = threading.Event()

    def write() -> None:
        for piece in (b"w", b"o"):
            stop.wait(0.4)
            with growing.open("ab") as out:
                out.write(piece)

    writer = threading.Thread(target=write)
    writer.start()
    made = colabkit.dataset(folder / "*.tif")
    writer.join()
    assert content_of(made) == {"1.tif": b"one", "2.tif": b"two"}
    assert "1 file is still being written and left out (3.tif)" in capsys.readouterr().out
    put(folder / "3.tif", b"three")
    pauses = []

    def watched(listing, *, pause, **options):
        return wait_until_stable(listing, pause=pauses.append, **options)

    monkeypatch.setattr("colabkit.datasets.folders.mirroring.wait_until_stable", watched)
    assert colabkit.dataset(folder / "*.tif") == made
    assert not pauses
    assert content_of(made)["3.tif"] == b"three"
