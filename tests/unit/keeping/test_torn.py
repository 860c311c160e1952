"""A checkpoint that is half written or half removed is neither kept as a whole nor the latest."""

from __future__ import annotations

import os
import shutil

import pytest

from colabkit.keeping.settling import SISTER_REST_S
from colabkit.keeping.units import WHOLE
from colabkit.keeping.wholeness import latest_in
from tests.unit.keeping.test_pointers import Watched

PARTS = ("model.pkl", "rank_0.pkl", "rank_1.pkl")


class Torn(Watched):
    def step(self, number, parts=PARTS, *, above=""):
        for part in parts:
            self.put(f"{above}step-{number}/{part}", f"{number}" * 100)
            at_s = 1_000_000_000 + number
            os.utime(self.folder / f"{above}step-{number}/{part}", (at_s, at_s))

    def latest(self, pattern="step-*"):
        return latest_in(
            self.folder,
            pattern,
            whole=WHOLE,
            skip=(),
            known=dict(self.taker.stamps),
            revisions={},
            inputs={},
        )

    def rest(self):
        self.version()
        self.now_s += SISTER_REST_S
        self.version()
        self.version()

    def files_of(self, number):
        prefix = f"step-{number}/"
        return sorted(p.removeprefix(prefix) for p in self.held.contents if p.startswith(prefix))


@pytest.fixture
def torn(tmp_path):
    return Torn(tmp_path)


@pytest.mark.parametrize("gone", [PARTS[:1], PARTS[1:], PARTS[2:]])
def test_one_that_is_half_removed_stays_whole_in_the_version_and_is_not_the_latest(torn, gone):
    torn.step(1)
    torn.step(2)
    torn.version()
    for part in gone:
        (torn.folder / "step-2" / part).unlink()
    assert torn.scan().is_empty
    torn.rest()
    assert torn.files_of(2) == sorted(PARTS)
    assert torn.latest().name == "step-1"
    torn.step(3)
    torn.rest()
    assert torn.files_of(2) == sorted(PARTS)
    assert torn.latest().name == "step-3"
    torn.step(2)
    torn.version()
    assert torn.latest("step-2").name == "step-2"
    shutil.rmtree(torn.folder / "step-2")
    torn.rest()
    assert torn.files_of(2) == []


def test_one_written_over_under_its_name_stays_until_all_of_it_is_there_again(torn):
    torn.step(1)
    torn.version()
    shutil.rmtree(torn.folder / "step-1")
    torn.put("step-1/model.pkl", "a new one")
    torn.rest()
    assert torn.files_of(1) == sorted(PARTS)
    assert torn.latest().name is None
    lacks = "step-1 lacks rank_#.pkl, which it had when it was kept"
    assert torn.taker.objections == {"step-1": lacks}
    torn.put("step-1/model.pkl", "again")
    torn.rest()
    assert torn.files_of(1) == ["model.pkl"]
    assert torn.latest().name == "step-1"


def test_what_lacks_something_replaces_no_whole_one_until_there_are_two_of_them(torn):
    torn.step(1)
    torn.version()
    shutil.rmtree(torn.folder / "step-1")
    torn.step(2, PARTS[:1])
    torn.rest()
    assert torn.files_of(1) == sorted(PARTS)
    assert torn.files_of(2) == ["model.pkl"]
    torn.step(3, PARTS[:1])
    torn.rest()
    assert torn.files_of(1) == []


def test_what_lacks_what_others_have_is_kept_for_whoever_waits_but_passed_over(torn):
    torn.step(1)
    torn.step(2)
    torn.version()
    torn.step(3, PARTS[:1])
    torn.version()
    assert torn.files_of(3) == ["model.pkl"]
    found = torn.latest()
    assert found.name == "step-2"
    assert found.passed_over == "step-3 lacks rank_#.pkl, which the others have"
    assert torn.latest("step-3").name == "step-3"
    torn.step(4, PARTS[:1])
    assert torn.latest().name == "step-4"
    assert torn.latest().passed_over == ""


@pytest.mark.parametrize("above", ["checkpoints/cats/", "runs/checkpoints/cats/a/"])
def test_a_runs_folder_among_checkpoints_is_no_checkpoint(torn, above):
    torn.put(f"{above}args.json", "{}")
    torn.version()
    with (torn.folder / above / "events.1").open("w") as log:
        log.write("1")
        log.flush()
        torn.step(1, above=above)
        torn.version()
        torn.step(2, ["model.pkl"], above=above)
        torn.put(f"{above}step-2/training_args.bin", "x")
        (torn.folder / above / "step-2").rename(torn.folder / above / "checkpoint-2")
        torn.version()
        assert f"{above}step-1/model.pkl" in torn.held.contents
        lacks = f"{above}checkpoint-2 lacks trainer_state.json"
        assert torn.taker.objections.get(f"{above}checkpoint-2") == lacks
        assert torn.latest().name == f"{above}step-1"
        assert torn.latest("checkpoint-*").name is None


def test_a_final_model_and_a_loop_of_ones_own_need_no_trainers_sign(torn):
    torn.put("checkpoints/final/training_args.bin", "x")
    torn.put("checkpoint-5/optimizer.pt", "x")
    torn.version()
    assert torn.held.contents.keys() == {
        "checkpoints/final/training_args.bin",
        "checkpoint-5/optimizer.pt",
    }
    assert torn.latest("checkpoint-*").name == "checkpoint-5"


def test_of_what_is_rotated_faster_than_versions_arrive_the_newest_is_kept_and_no_more(torn):
    for number in range(1, 30, 3):
        torn.step(number)
        torn.step(number + 1)
        torn.version()
        torn.version()
        for step in (number, number + 1):
            shutil.rmtree(torn.folder / f"step-{step}")
        torn.step(number + 2)
        torn.now_s += SISTER_REST_S
        torn.version()
        shutil.rmtree(torn.folder / f"step-{number + 2}")
        kept = {int(path.partition("/")[0][5:]) for path in torn.held.contents}
        assert number + 1 in kept
        assert len(kept) <= 3


def test_where_each_is_gone_at_the_next_look_the_version_does_not_grow(torn):
    for number in range(1, 9):
        torn.step(number)
        torn.scan()
        torn.take(torn.scan())
        torn.now_s += SISTER_REST_S
        shutil.rmtree(torn.folder / f"step-{number}")
        kept = {path.partition("/")[0] for path in torn.held.contents}
        assert f"step-{number}" in kept
        assert len(kept) <= 2
