"""Where a run's checkpoints are, told stage by stage."""

from __future__ import annotations

import dataclasses
import datetime

from colabkit.checkpoint import FoundSave, SaveState, SaveStatus, UploadStatus
from colabkit.notebook import Stage, Tone
from colabkit.runs.save_words import SaveTrail, bar_words, complaint_of, parting_words


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def spooled(step: int, age_s: float, **carried) -> SaveStatus:
    return SaveStatus(SaveState.STAGED, step=step, age_s=age_s, upload=UploadStatus(**carried))


def test_before_the_first_save_there_is_nothing():
    trail = SaveTrail(Clock())
    trail.follow(SaveStatus())
    assert trail.stages(SaveStatus(), volume="run folder") == [Stage("run folder")]
    assert trail.stages(None, volume="run folder") == []
    assert bar_words(None) == bar_words(SaveStatus()) == ""


SAVED_AT = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)


def trail_of_a_resume(status: SaveStatus, *, after_s: float = 90.0) -> SaveTrail:
    trail = SaveTrail(Clock(), now=lambda: SAVED_AT + datetime.timedelta(seconds=after_s))
    trail.follow(status)
    return trail


def test_after_a_resume_the_run_folder_holds_what_it_goes_on_from():
    status = SaveStatus(found=FoundSave(40, SAVED_AT))
    trail = trail_of_a_resume(status)
    stages = trail.stages(status, volume="run folder")
    assert [(s.step, s.age_s) for s in stages] == [(40, 90.0)]
    newer = dataclasses.replace(status, state=SaveState.COMMITTED, step=60, age_s=1.0)
    trail.follow(newer)
    assert [(s.step, s.age_s) for s in trail.stages(newer, volume="run folder")] == [(60, 1.0)]


def test_after_a_resume_from_a_slow_volume_no_more_is_said_of_a_place_than_is_known():
    upload = UploadStatus(committed_step=40)
    status = SaveStatus(found=FoundSave(40, SAVED_AT), upload=upload)
    here, there, uploaded = trail_of_a_resume(status).stages(status, volume="Drive")
    assert (here.step, here.none) == (None, "nothing since step 40")
    assert (there.step, there.age_s) == (40, 90.0)
    assert (uploaded.step, uploaded.none) == (None, "not yet")
    silent = dataclasses.replace(status, upload=dataclasses.replace(upload, is_silent=True))
    assert trail_of_a_resume(silent).stages(silent, volume="Drive")[-1].none == "not told"
    told = dataclasses.replace(status, upload=dataclasses.replace(upload, confirmed_step=40))
    assert trail_of_a_resume(told).stages(told, volume="Drive")[-1].step == 40


def test_after_a_resume_from_this_machine_alone_that_is_where_it_is():
    found = FoundSave(40, SAVED_AT, is_staged=True)
    status = SaveStatus(found=found, upload=UploadStatus(waiting=1))
    here, there, uploaded = trail_of_a_resume(status).stages(status, volume="Drive")
    assert (here.step, here.age_s) == (40, 90.0)
    assert (there.step, there.none, there.remark) == (None, "nothing since step 40", "1 waiting")
    assert (uploaded.step, uploaded.none) == (None, "nothing since step 40")


def test_on_a_disk_there_is_one_stage_with_its_age():
    clock = Clock()
    trail = SaveTrail(clock)
    status = SaveStatus(SaveState.COMMITTED, step=40, age_s=2.0)
    trail.follow(status)
    clock.now_s += 3
    assert trail.stages(status, volume="run folder") == [Stage("run folder", 40, 5.0)]
    writing = dataclasses.replace(status, state=SaveState.COPIED)
    assert trail.stages(writing, volume="run folder")[0].remark == "writing the next"


def test_each_place_shows_how_old_the_state_is_that_it_holds():
    clock = Clock()
    trail = SaveTrail(clock)
    for step in (10, 20, 30):
        trail.follow(spooled(step, 0.0, waiting=step // 10))
        clock.now_s += 10
    status = spooled(30, 10.0, committed_step=20, confirmed_step=10, waiting=1)
    trail.follow(status)
    assert trail.stages(status, volume="Drive") == [
        Stage("this machine", 30, 10.0),
        Stage("Drive", 20, 20.0, Tone.PLAIN, "1 waiting"),
        Stage("Drive: uploaded", 10, 30.0),
    ]


def test_a_checkpoint_of_an_earlier_session_has_no_age():
    status = spooled(30, 0.0, committed_step=7)
    trail = SaveTrail(Clock())
    trail.follow(status)
    assert trail.stages(status, volume="Drive")[1] == Stage("Drive", 7)


def test_what_stands_in_the_way_is_marked():
    trail = SaveTrail(Clock())
    broken = spooled(30, 0.0, waiting=2, error=OSError("full"))
    assert trail.stages(broken, volume="Drive")[1].tone is Tone.BAD
    slow = spooled(30, 0.0, busy_s=12.0)
    assert trail.stages(slow, volume="Drive")[1] == Stage(
        "Drive", None, None, Tone.NOTE, "copying for 12 s"
    )
    assert "full" in complaint_of(broken)
    assert complaint_of(slow) == ""


def test_the_trail_forgets_what_is_uploaded():
    trail = SaveTrail(Clock())
    for step in range(1000):
        trail.follow(spooled(step, 0.0, confirmed_step=max(0, step - 2)))
    assert len(trail._saved_s) <= 4


def test_at_the_end_it_is_said_what_is_not_uploaded_yet():
    assert parting_words(SaveStatus(SaveState.COMMITTED, step=40)) == ""
    assert parting_words(spooled(40, 1.0, committed_step=40, confirmed_step=40)) == ""
    waiting = spooled(1200, 1.0, committed_step=1200, confirmed_step=40, unconfirmed_s=3.0)
    assert parting_words(waiting) == (
        "Drive has not uploaded the checkpoint of step 1,200 so far: keep this machine until it"
        " has; colabkit.release() waits for it."
    )
    silent = spooled(40, 1.0, committed_step=40, unconfirmed_s=3.0, is_silent=True)
    assert "does not say here when the checkpoint of step 40 is uploaded" in parting_words(silent)
