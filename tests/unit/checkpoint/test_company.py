"""Several processes write one checkpoint: whoever dies at whatever point, the newest is whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from colabkit.checkpoint import (
    PartPlace,
    company,
    parts,
    snapshot,
    store_of_parts,
)
from colabkit.errors import StorageError
from colabkit.storage import Files
from tests.unit.checkpoint.crew import (
    Crew,
    Full,
    Mortal,
    live,
    loaded_step,
    named_shards,
    newest,
    ranks_in,
    shards,
    taken_over,
)
from tests.unit.checkpoint.numpy_backend import Tensor

SOAK = bool(os.environ.get("COLABKIT_SOAK"))


@pytest.fixture(autouse=True)
def small_tensors(monkeypatch):
    """Lets tensors of a few bytes be worth sharing, and the dead be given up at once."""
    monkeypatch.setattr(parts, "LEAST_BYTES", 1)
    monkeypatch.setattr(snapshot, "AT_ONCE_BYTES", 1)
    monkeypatch.setattr(company, "WORTH_BYTES", 1)
    monkeypatch.setattr(company, "_GRACE_S", 0.0)


@pytest.fixture
def crew(tmp_path):
    made = Crew(tmp_path / "run", [Files(), Files(), Files()])
    made.open()
    yield made
    made.close()


def test_the_third_save_is_shared_out_once_the_second_has_shown_that_all_hold_the_same(crew):
    seen = []
    for step in (1, 2, 3, 4):
        assert crew.save(step)
        assert loaded_step(crew.root) == step
        seen.append(ranks_in(newest(crew.root)))
    assert seen == [{0}, {0}, {0, 1, 2}, {0, 1, 2}]
    # Pruning knows the files of all: those of two checkpoints are left.
    assert {*shards(crew.root)} == named_shards(crew.root)


def test_each_tensor_is_written_by_one_process_and_told_to_be_where_it_is(crew):
    for step in (1, 2, 3):
        crew.save(step)
    manifest = newest(crew.root)
    whose = [entry.shard.split("-")[1] for entry in manifest.tensors if entry.section == "model"]
    assert len(whose) == 5
    assert whose.count("r0001") == 2
    assert whose.count("r0002") == 1


def test_one_process_goes_on_from_what_several_wrote_and_refers_to_their_files(crew, tmp_path):
    for step in (1, 2, 3):
        crew.save(step)
    crew.close()
    alone = Crew(tmp_path / "run", [Files()])
    alone.open()
    alone.writers[0].layers["w1"].values[:] = 0
    assert alone.save(4)
    assert loaded_step(tmp_path / "run") == 4
    alone.close()


def test_a_process_that_holds_other_values_is_left_out_and_rank_0s_count(crew, caplog):
    wrong = crew.writers[1]
    wrong.train = lambda step: [t.values.fill(7) for t in wrong.layers.values()]
    for step in (1, 2, 3):
        assert crew.save(step)
        assert loaded_step(crew.root) == step
        assert ranks_in(newest(crew.root)) == {0}
    assert "process 1 holds other values" in caplog.text


def test_a_process_whose_tensors_become_others_is_left_out(crew, caplog):
    for step in (1, 2, 3):
        assert crew.save(step)
    crew.writers[2].layers["more"] = Tensor(np.ones(9))
    assert crew.save(4)
    assert loaded_step(crew.root) == 4
    assert ranks_in(newest(crew.root)) == {0}
    assert "process 2 holds other tensors" in caplog.text
    assert crew.save(5)
    assert loaded_step(crew.root) == 5


def test_tensors_that_all_have_more_of_are_compared_before_they_are_shared_out(crew):
    for step in (1, 2, 3):
        assert crew.save(step)
    for writer in crew.writers:
        writer.layers["more"] = Tensor(np.ones(9))
    seen = []
    for step in (4, 5):
        assert crew.save(step)
        assert loaded_step(crew.root) == step
        seen.append(ranks_in(newest(crew.root)))
    assert seen == [{0}, {0, 1, 2}]


def test_what_is_nan_in_a_part_of_another_process_is_nan_in_the_whole(crew):
    for step in (1, 2, 3):
        crew.save(step)
    part = next(e for e in newest(crew.root).tensors if "-r0002-" in e.shard)
    train = [writer.train for writer in crew.writers]
    for writer, usual in zip(crew.writers, train, strict=True):

        def spoiled(step: int, *, writer=writer, usual=usual) -> None:
            usual(step)
            writer.layers[part.key].values[0] = np.nan

        writer.train = spoiled
    assert crew.save(4)
    assert not newest(crew.root).facts.is_finite
    assert not crew.writers[0].saver.status().is_finite


def test_a_flipped_byte_in_a_part_leaves_the_checkpoint_before(crew):
    for step in (1, 2, 3, 4):
        crew.save(step)
    name = next(n for n in newest(crew.root).shards if "-r0001-" in n)
    path = crew.root / "shards" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert loaded_step(crew.root) == 3


def test_a_part_that_cannot_be_written_costs_no_save(tmp_path, caplog):
    files = Full()
    crew = Crew(tmp_path / "run", [Files(), files])
    crew.open()
    for step in (1, 2, 3):
        assert crew.save(step)
    files.is_full = True
    assert crew.save(4)
    assert loaded_step(crew.root) == 4
    assert "process 1: DiskFullError" in caplog.text
    assert ranks_in(newest(crew.root)) == {0}
    crew.close()


def test_a_full_disk_of_the_one_that_publishes_leaves_nothing_of_the_others(tmp_path):
    files = Full()
    crew = Crew(tmp_path / "run", [files, Files()])
    crew.open()
    for step in (1, 2, 3):
        assert crew.save(step)
    before = shards(crew.root)
    files.is_full = True
    with pytest.raises(OSError, match="is full"):
        crew.save(4)
    assert shards(crew.root) == before
    files.is_full = False
    assert crew.save(5)
    assert ranks_in(newest(crew.root)) == {0, 1}
    assert loaded_step(crew.root) == 5
    crew.close()


def test_a_session_that_was_taken_over_publishes_nothing_and_leaves_nothing(crew, tmp_path):
    for step in (1, 2, 3):
        crew.save(step)
    taken_over(crew, Crew(tmp_path / "run", [Files()]))
    assert loaded_step(crew.root) == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_torn_snapshot_of_one_process_tears_the_whole_and_is_taken_again(rank, crew):
    for step in (1, 2, 3):
        crew.save(step)
    crew.writers[rank].is_torn = True
    assert crew.save(4)
    assert loaded_step(crew.root) == 4
    assert ranks_in(newest(crew.root)) == {0, 1, 2}
    assert {*shards(crew.root)} == named_shards(crew.root)


def test_a_save_alone_behind_a_call_that_came_to_nothing_takes_nothing_of_that_call(crew):
    for step in (1, 2, 3):
        crew.save(step)
    first = crew.writers[0]
    # The others have written their parts of step 4, and taking it has failed here.
    crew.company.call(first.saver.next_name)
    first.train(5)
    crew.company.call_nobody()
    first.offer(5)
    first.saver.flush()
    assert loaded_step(crew.root) == 5
    assert ranks_in(newest(crew.root)) == {0}
    assert crew.save(6)
    assert ranks_in(newest(crew.root)) == {0, 1, 2}


def test_another_folder_under_the_same_path_is_not_written_to(crew, tmp_path):
    for step in (1, 2, 3):
        crew.save(step)
    name = newest(crew.root).name
    place = PartPlace("", name.generation, name.owner)
    assert store_of_parts(crew.root, place).names()
    with pytest.raises(StorageError, match="not the folder that process 0 writes to"):
        store_of_parts(tmp_path / "elsewhere", place)


def work_of_one(root: Path, doomed: int, dies_at: int) -> int:
    """Has one of three processes die at a point of its own; returns how much it has done."""
    files = [Mortal(dies_at if rank == doomed else -1) for rank in range(3)]
    live(Crew(root, files), saves=5, loaded=loaded_step)
    return files[doomed].count


@pytest.mark.parametrize("doomed", [0, 1, 2])
def test_whoever_dies_at_whatever_point_the_newest_is_whole_and_the_next_session_sweeps(
    doomed, tmp_path
):
    points = work_of_one(tmp_path / "whole", doomed, -1)
    assert points > (50 if doomed == 0 else 10)
    for point in range(doomed, points, 1 if SOAK else 5):
        root = tmp_path / f"{point}"
        work_of_one(root, doomed, point)
        if doomed:
            # The others have gone on without it.
            assert loaded_step(root) == 5
        crew = Crew(root, [Files(), Files()])
        crew.open()
        for step in (6, 7, 8):
            assert crew.save(step)
        crew.close()
        assert loaded_step(root) == 8
        crew.open()  # where a manifest was emptied, and not yet removed, the sweep comes after it
        crew.close()
        assert {*shards(root)} == named_shards(root)
