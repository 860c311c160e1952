"""Event files for TensorBoard: read back by its own reader, without gaps or doubles."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from colabkit.checkpoint import RunFolder, SaveState, SaveStatus, UploadStatus
from colabkit.errors import ArgumentError
from colabkit.runs.event_files import events, header
from colabkit.runs.event_log import EventLog, Part, chain_of
from colabkit.runs.history import History
from colabkit.runs.loggers import events_for


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns all scalars as TensorBoard reads them: by tag, (step, value)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        reader = EventAccumulator(str(folder), {"scalars": 0})
        reader.Reload()
        return {
            tag: [(event.step, event.value) for event in reader.Scalars(tag)]
            for tag in reader.Tags()["scalars"]
        }


def grown(history: History, first: int, end: int) -> None:
    for step in range(first, end):
        history.append_step(step, {"loss": step / 2} | ({"rare": 1.0} if step % 3 == 0 else {}))


def committed(step: int) -> SaveStatus:
    return SaveStatus(SaveState.COMMITTED, step=step)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "tensorboard").glob("*"))


def test_tensorboard_reads_what_was_written(tmp_path):
    steps = np.arange(5)
    values = {
        "a/loss": np.array([0.5, math.nan, math.inf, 1e300, -2.0]),
        "ünïcode " + "long " * 60: np.array([math.nan, math.nan, 3.0, 4.0, 5.0]),
        "never": np.full(5, math.nan),
    }
    data = header(7.0) + events(steps + 10.0, steps * 10**9, values)
    (tmp_path / "events.out.tfevents.1").write_bytes(data)
    found = read(tmp_path)
    assert found.pop("a/loss") == [
        (0, 0.5), (2 * 10**9, math.inf), (3 * 10**9, math.inf), (4 * 10**9, -2.0)
    ]  # fmt: skip
    assert list(found.values()) == [[(2 * 10**9, 3.0), (3 * 10**9, 4.0), (4 * 10**9, 5.0)]]


def test_all_of_a_run_is_told_once_over_any_number_of_parts(tmp_path):
    clock, history = Clock(), History()
    log = EventLog(history, RunFolder(tmp_path), clock=clock)
    log.open(0)
    for first in range(0, 1000, 100):
        grown(history, first, first + 100)
        log.follow(committed(first + 60))
        log._join()
        history.append_epoch(
            epoch=first // 100, step=first + 100, seconds=1.0, values={"val_loss": 0.1}
        )
        clock.now_s += 60
    log.finish(1000)
    found = read(tmp_path / "tensorboard")
    assert found["step/loss"] == [(step, step / 2) for step in range(1000)]
    assert found["step/rare"] == [(step, 1.0) for step in range(0, 1000, 3)]
    assert found["epoch/val_loss"] == [(step, pytest.approx(0.1)) for step in range(100, 1001, 100)]
    assert len(files(tmp_path)) == 11


def test_nothing_is_published_before_it_is_in_a_checkpoint(tmp_path):
    history = History()
    log = EventLog(history, RunFolder(tmp_path), clock=Clock())
    log.open(0)
    grown(history, 0, 100)
    log.follow(None)
    log.follow(SaveStatus())
    log.follow(SaveStatus(SaveState.STAGED, step=90, upload=UploadStatus()))
    assert files(tmp_path) == []
    log.follow(SaveStatus(SaveState.STAGED, step=90, upload=UploadStatus(committed_step=40)))
    log._join()
    assert read(tmp_path / "tensorboard")["step/loss"][-1] == (39, 19.5)


def test_a_resume_from_an_older_checkpoint_leaves_no_doubled_steps(tmp_path):
    history = History()
    log = EventLog(history, RunFolder(tmp_path), clock=Clock())
    log.open(0)
    grown(history, 0, 100)
    log.follow(committed(60))
    log.finish(100)
    resumed = History()
    grown(resumed, 0, 50)
    log = EventLog(resumed, RunFolder(tmp_path), clock=Clock())
    log.open(50)
    assert files(tmp_path) == []
    grown(resumed, 50, 120)
    log.finish(120)
    assert read(tmp_path / "tensorboard")["step/loss"] == [(s, s / 2) for s in range(120)]


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "tensorboard").mkdir()
    own = tmp_path / "tensorboard" / "events.out.tfevents.123.host"
    own.write_bytes(header(1.0))
    log = EventLog(History(), RunFolder(tmp_path))
    log.open(0)
    log.finish(0)
    assert files(tmp_path) == [own.name]


def test_a_run_started_anew_has_a_folder_of_its_own(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin_attempt()
    folder._attempt = 2
    history = History()
    grown(history, 0, 3)
    log = EventLog(history, folder)
    log.finish(3)
    assert read(tmp_path / "tensorboard-attempt-2")["step/loss"] == [(0, 0.0), (1, 0.5), (2, 1.0)]


def test_files_come_every_half_minute_at_most_and_more_rarely_later(tmp_path):
    clock, history, at = Clock(), History(), []
    log = EventLog(history, RunFolder(tmp_path), clock=clock)
    log.open(0)
    for step in range(1, 4 * 360):
        clock.now_s += 10.0
        grown(history, step - 1, step)
        before = log._last
        log.follow(committed(step))
        log._join()
        at += [clock.now_s] * (log._last != before)
    gaps = [b - a for a, b in itertools.pairwise(at)]
    assert min(gaps) >= 30
    assert max(gaps) <= 310
    assert len(at) < 130


def test_a_volume_that_fails_is_tried_again_with_all_that_waits(tmp_path):
    clock, history = Clock(), History()
    log = EventLog(history, RunFolder(tmp_path), clock=clock)
    log.open(0)
    grown(history, 0, 20)
    (tmp_path / "tensorboard").write_text("a file in the way")
    log.follow(committed(10))
    log._join()
    (tmp_path / "tensorboard").unlink()
    clock.now_s += 60
    log.follow(committed(20))
    log._join()
    assert len(read(tmp_path / "tensorboard")["step/loss"]) == 20


def test_a_chain_ends_where_a_part_is_missing_or_tells_of_lost_steps():
    parts = [Part(0, 10, 0, 1), Part(10, 20, 1, 2), Part(20, 20, 2, 3), Part(20, 30, 3, 3)]
    names = [part.name for part in parts]
    assert names == sorted(names)
    assert chain_of(names, step=30, epochs=3) == (parts[3], [])
    assert chain_of(names, step=29, epochs=3) == (parts[2], names[3:])
    assert chain_of(names, step=30, epochs=2) == (parts[1], names[2:])
    assert chain_of(names[1:], step=30, epochs=3)[1] == names[1:]
    rival = Part(10, 15, 1, 1).name
    assert chain_of([*names, rival, "other"], step=30, epochs=3)[1] == names[1:]


def test_a_hundred_thousand_steps_are_told_in_a_moment():
    values = {f"step/{n}": np.random.default_rng(0).normal(size=100_000) for n in range(3)}
    began_s = time.process_time()
    data = events(np.arange(100_000.0), np.arange(100_000), values)
    assert time.process_time() - began_s < 10.0
    assert len(data) < 100_000 * 110


def test_tensorboard_is_asked_for_with_true_or_as_a_logger(tmp_path):
    folder = RunFolder(tmp_path)
    for tensorboard, logger, kinds in [
        (False, None, []),
        (True, None, [EventLog]),
        (False, "tensorboard", [EventLog]),
        (True, ["tensorboard"], [EventLog]),
    ]:
        made = events_for(tensorboard, logger, History(), folder, say=print)
        assert [type(each) for each in made.members] == kinds
    with pytest.raises(ArgumentError, match="'logs'"):
        events_for("logs", None, History(), folder, say=print)


def test_what_could_not_be_written_at_the_end_is_said_in_one_sentence(tmp_path, caplog):
    history = History()
    grown(history, 0, 20)
    (tmp_path / "tensorboard").write_text("a file in the way")
    EventLog(history, RunFolder(tmp_path)).finish(20)
    said = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.exc_info for record in said] == [None]
    assert "are not complete" in said[0].getMessage()
