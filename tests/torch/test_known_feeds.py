"""A loop of one's own may read one source in several ways, and new ones in each epoch."""

from __future__ import annotations

import gc
import weakref

import torch

import colabkit
from tests.torch.cases import arrays


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
