"""Loops over epochs alone: all of the data at once, a generation, a round of something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

import colabkit
from tests.torch.killing import in_child, kill_self

EPOCHS = 9
X, Y = torch.randn(40, 8), torch.randint(0, 3, (40,))


class Logger:
    """Keeps the numbers of the steps that it is told of."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, _values: dict[str, float], step: int) -> None:
        self.steps.append(step)


def train(folder: Path, *, epochs: int = EPOCHS, die_in: int = -1, **options: Any) -> Any:
    """The loop of a graph's or a physics' network."""
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 3)
    optimizer = torch.optim.Adam(model.parameters())
    run = colabkit.Run(folder, model=model, optimizer=optimizer, save_every=2, **options)
    for epoch in run.epochs(epochs):
        loss = functional.cross_entropy(torch.dropout(model(X), 0.2, train=True), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss)
        if die_in >= 0:
            run.flush()  # one that is due while another is written waits for its turn
        if epoch == die_in:
            kill_self()
    return model.weight.detach(), run


def test_each_epoch_is_a_step_saved_told_and_gone_on_from(tmp_path, capsys):
    logger = Logger()
    alone, whole = train(tmp_path / "alone", logger=logger)
    said = capsys.readouterr().out
    assert said.count("Resume is exact") == said.count("counts as one step") == 1
    assert whole.step == len(whole.history.steps["loss"]) == EPOCHS
    assert sorted(set(logger.steps)) == list(range(EPOCHS))
    assert not in_child(lambda: train(tmp_path / "run", die_in=6), report=tmp_path / "report")
    assert colabkit.checkpoints(tmp_path / "run")[0].step == 6
    resumed, run = train(tmp_path / "run")
    assert torch.equal(resumed, alone)
    assert run.history.numbers()["epochs"] == whole.history.numbers()["epochs"]
    losses = (each.history.steps["loss"].tolist() for each in (run, whole))
    assert next(losses) == next(losses)


def test_a_limit_of_steps_ends_it_once(tmp_path, capsys):
    for _ in range(2):
        _, run = train(tmp_path / "run", max_steps=4)
        assert (run.step, run.epoch) == (4, 4)
    assert "Nothing left to do: 4 steps are trained" in capsys.readouterr().out
    resumed, _ = train(tmp_path / "run")
    assert torch.equal(resumed, train(tmp_path / "alone")[0])


def test_what_a_session_of_little_time_trained_is_saved(tmp_path):
    steps = 0
    while not steps:  # on a busy machine the time may be up before the first step
        _, run = train(tmp_path, epochs=100_000, max_time=0.2, progress=False)
        steps = run.step
    assert run.has_trained
    assert colabkit.checkpoints(tmp_path)[0].step == steps


def test_an_epoch_whose_batches_are_done_is_no_further_step(tmp_path):
    """A resume behind the pass of an epoch enters that no more."""
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=20)

    def train_in_batches(*, die: bool) -> int:
        model = torch.nn.Linear(8, 3)
        run = colabkit.Run(tmp_path, model=model, progress=False)
        for _ in run.epochs(2):
            for _ in run.batches(data):
                pass
            run.flush()
            if die:
                kill_self()
        return run.step

    assert not in_child(lambda: train_in_batches(die=True), report=tmp_path / "report")
    assert train_in_batches(die=False) == 4


def test_an_epoch_between_others_that_read_data_is_no_step(tmp_path, capsys):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=20)
    run = colabkit.Run(tmp_path, model=torch.nn.Linear(8, 3))
    steps = []
    for epoch in run.epochs(5):
        for _ in run.batches(data) if epoch in {1, 3} else ():
            pass
        steps.append(run.step)
    assert (steps, run.step) == ([0, 3, 3, 5, 5], 5)
    # What the data adds is said where it is first read.
    assert capsys.readouterr().out.count("Resume is") == 2
