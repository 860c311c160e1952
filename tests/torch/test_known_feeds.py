"""A loop of one's own may read one source in several ways, and new ones in each epoch."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import colabkit
from colabkit.errors import CheckpointMismatchError
from tests.torch.cases import arrays, network
from tests.torch.killing import in_child, kill_self


def test_the_same_arrays_can_be_read_in_two_ways(tmp_path):
    run, data = colabkit.Run(tmp_path, progress=False), arrays()
    sizes, order = [], []
    for _ in run.epochs(1):
        sizes += [len(x) for x, _ in run.batches(data, batch_size=30)]
        order += [x for x, _ in run.batches(data, batch_size=11, shuffle=False)]
    assert sizes == [30, 14]
    assert torch.equal(torch.cat(order), data[0])


def test_data_made_anew_in_each_epoch_is_let_go(tmp_path):
    run, alive = colabkit.Run(tmp_path, progress=False), []
    for epoch in run.epochs(6):
        played = torch.full((40, 2), float(epoch))
        alive.append(weakref.ref(played))
        for batch in run.batches(played):
            run.log(value=batch.mean())
    del played, batch
    gc.collect()
    assert sum(each() is not None for each in alive) <= 2


def growing(folder: Path, hook: Callable[[int], None]) -> colabkit.Run:
    """Data made anew in each epoch, of another length each time."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, save_every=1, progress=False)
    for epoch in run.epochs(3):
        x = torch.randn(16 + 8 * epoch, 6)
        for inputs, target in run.batches((x, (x.sum(1) > 0).long()), batch_size=8):
            loss = functional.cross_entropy(model(inputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.flush()
            hook(run.step)
            run.log(loss=loss)
    return run


def test_each_epoch_may_have_data_of_another_length(tmp_path):
    alone = growing(tmp_path / "alone", lambda step: None)
    assert [row["step"] for row in alone.history.epochs] == [2, 5, 9]


@pytest.mark.parametrize("step", [2, 3, 5, 8])
def test_data_of_another_length_in_each_epoch_is_resumed(step, tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"

    def kill(reached: int) -> None:
        if reached == step:
            kill_self()

    report = tmp_path / "report.txt"
    assert in_child(lambda: growing(alone, lambda _: None) and None, report=report)
    assert not in_child(lambda: growing(killed, kill) and None, report=report)
    assert in_child(lambda: growing(killed, lambda _: None) and None, report=report)
    one, other = (colabkit.checkpoints(folder)[0] for folder in (alone, killed))
    assert one.step == other.step == 9
    kept = [
        {name: value for name, value in info.hashes.items() if not name.startswith("run.")}
        for info in (one, other)
    ]
    assert kept[0] == kept[1]


def read(folder: Path, samples: int) -> None:
    """Is interrupted at its first batch."""
    x, y = arrays()
    run = colabkit.Run(folder, save_every=1, progress=False)
    for _ in run.epochs(1):
        for _ in run.batches((x[:samples], y[:samples]), batch_size=8):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_pass_that_goes_on_needs_data_of_the_same_length(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path, 44)
    with pytest.raises(CheckpointMismatchError, match="samples: was 44, is 40"):
        read(tmp_path, 40)
