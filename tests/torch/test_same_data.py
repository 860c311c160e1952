"""A run that goes on reads the data that it was trained on, or says that it does not."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import torch
from torch import nn

import colabkit
from colabkit.errors import ArgumentError, CheckpointMismatchError

STEPS_AN_EPOCH = 5


def samples(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x.sum(1) > 0).long()


def fit(folder, data, *, batch_size=8, **more):
    torch.manual_seed(0)
    model = nn.Linear(6, 2)
    more = {"epochs": 2, "progress": False, **more}
    return colabkit.fit(model, data, folder, batch_size=batch_size, **more)


def renumbered(data):
    return data[0], 1 - data[1]


def in_another_order(data):
    return tuple(part.flip(0) for part in data)


def of_another_split(data):
    return samples(seed=2)


@pytest.fixture(params=[STEPS_AN_EPOCH, 3, 2 * STEPS_AN_EPOCH], ids=["edge", "middle", "end"])
def trained_steps(request):
    return request.param


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (renumbered, r"another batch\[1\], and the same batch\[0\]"),
        (in_another_order, "other samples|another order"),
        (of_another_split, "other samples"),
    ],
)
@pytest.mark.parametrize("kind", [tuple, lambda data: torch.utils.data.TensorDataset(*data)])
def test_data_that_has_changed_ends_a_resume(changed, words, kind, trained_steps, tmp_path):
    data = samples()
    fit(tmp_path, kind(data), max_steps=trained_steps)
    with pytest.raises(CheckpointMismatchError, match=words) as caught:
        fit(tmp_path, kind(changed(data)))
    assert "resume=False" in str(caught.value)
    assert caught.value.differences


def test_changed_data_is_taken_where_it_is_accepted(trained_steps, tmp_path):
    fit(tmp_path, samples(), max_steps=trained_steps)
    history = fit(tmp_path, samples(seed=2), data_changed="accept")
    assert len(history.epochs) == 2
    # A training that is over makes no promise any more.
    assert history.verdict is None or "not what it was" in str(history.verdict)


def test_the_ways_on_that_are_named_work(tmp_path):
    fit(tmp_path, samples(), max_steps=3)
    assert len(fit(tmp_path, samples(seed=2), resume="weights").epochs) == 2
    assert len(fit(tmp_path, samples(seed=3), resume=False).epochs) == 2


def test_the_same_data_goes_on_without_a_word(trained_steps, tmp_path, capsys):
    fit(tmp_path, samples(), validation_data=samples(seed=5), max_steps=trained_steps)
    history = fit(tmp_path, samples(), validation_data=samples(seed=5), progress=True)
    assert "not what it was" not in capsys.readouterr().out
    assert history.verdict is None or str(history.verdict).startswith("Resume is exact")


class Graphs:
    """A batch that is an object, holds its tensors in another, and can be called."""

    def __init__(self, x, y):
        self._store = Store(x, y)

    def __call__(self, *names):
        return [self._store.by_name[name] for name in names]


class Store:
    def __init__(self, x, y):
        self.by_name = {"nodes": {"x": x}, "y": y}


@dataclasses.dataclass(slots=True)
class Columns:
    """A batch that has slots alone."""

    x: torch.Tensor
    y: torch.Tensor


@pytest.mark.parametrize("kind", [Graphs, Columns])
def test_batches_that_are_objects_are_looked_into(kind, tmp_path):
    def train(seed, max_steps=None):
        x, y = samples(seed)
        data = [kind(*part) for part in zip(x.split(8), y.split(8), strict=True)]
        run = colabkit.Run(tmp_path, model=nn.Linear(6, 2), progress=False, max_steps=max_steps)
        for _ in run.batches(data):
            pass

    train(1, 3)
    with pytest.raises(CheckpointMismatchError, match=r"another batch\..*\bx\b|other samples"):
        train(2)
    train(1)


def test_another_validation_set_ends_a_resume(tmp_path):
    fit(tmp_path, samples(), validation_data=samples(seed=5), max_steps=STEPS_AN_EPOCH)
    with pytest.raises(CheckpointMismatchError, match="first validation batch"):
        fit(tmp_path, samples(), validation_data=samples(seed=6))


def test_another_fold_is_not_taken_for_trained(tmp_path):
    fit(tmp_path, samples())
    with pytest.raises(CheckpointMismatchError, match="a fold, needs another folder"):
        fit(tmp_path, samples(seed=2))


@pytest.mark.parametrize("trained", [3, STEPS_AN_EPOCH])
def test_batches_of_another_size_are_no_other_data(trained, tmp_path):
    more = {"validation_data": samples(seed=5)}
    fit(tmp_path, samples(), max_steps=trained, **more)
    fit(tmp_path, samples(), batch_size=4, max_steps=trained + 2, **more)
    assert len(fit(tmp_path, samples(), batch_size=4, **more).epochs) == 2


class Guessed(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.full((6,), float(os.urandom(1)[0])), index % 2


def test_data_that_cannot_be_repeated_is_no_error(tmp_path, capsys):
    fit(tmp_path, Guessed(), max_steps=3)
    history = fit(tmp_path, Guessed(), progress=True)
    assert "not what it was" in capsys.readouterr().out
    assert len(history.epochs) == 2


def loop(folder, data, *, in_place=False, stop_at=None):
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(
        folder, model=model, optimizer=optimizer, save_every=1, progress=False, max_steps=stop_at
    )
    for _ in run.epochs(2):
        for x, y in run.batches(data, batch_size=8):
            if in_place:
                x *= 2
            inputs = torch.as_tensor(x)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), torch.as_tensor(y)).backward()
            optimizer.step()
    return run


def as_arrays(data):
    return [(x.numpy(), y.numpy()) for x, y in zip(data[0].split(8), data[1].split(8), strict=True)]


@pytest.mark.parametrize("kind", [tuple, as_arrays])
@pytest.mark.parametrize("in_place", [False, True])
def test_what_a_step_does_to_its_batch_is_no_change_of_data(kind, in_place, tmp_path):
    loop(tmp_path, kind(samples()), in_place=in_place, stop_at=3)
    assert loop(tmp_path, kind(samples()), in_place=in_place).step == 2 * STEPS_AN_EPOCH


@pytest.mark.parametrize("kind", [tuple, as_arrays])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_loop_of_ones_own_is_told_of_other_data(kind, in_place, tmp_path):
    loop(tmp_path, kind(samples()), in_place=in_place, stop_at=3)
    with pytest.raises(CheckpointMismatchError, match="batch 3 of epoch 1"):
        loop(tmp_path, kind(samples(seed=2)), in_place=in_place)


def test_other_items_end_a_resume_and_a_moved_folder_does_not(tmp_path):
    def read(folder, items, stop_at=None):
        run = colabkit.Run(folder, save_every=1, progress=False, max_steps=stop_at)
        return list(run.items(items))

    read(tmp_path, ["/here/a.png", "/here/b.png", "/here/c.png"], stop_at=2)
    with pytest.raises(CheckpointMismatchError, match="batch 2 of epoch 1"):
        read(tmp_path, ["/here/c.png", "/here/a.png", "/here/b.png"])
    assert read(tmp_path, ["/there/a.png", "/there/b.png", "/there/c.png"]) == ["/there/c.png"]


def test_a_word_that_data_changed_does_not_know_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="data_changed"):
        fit(tmp_path, samples(), data_changed="ignore")


def test_arrays_of_numpy_are_records_of_their_bytes():
    from colabkit.frameworks.torch.compare import record

    assert record([np.zeros(3)]) == record([np.zeros(3)])
    assert record([np.zeros(3)]) != record([np.zeros(4)])
