"""What a resume does again on its way, heads of epochs and code between loops, counts once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

import colabkit
from colabkit.errors import ArgumentError
from tests.torch.killing import in_child, kill_self
from tests.torch.plain_notebook import PlainLoop

STEPS, EVALUATED, EPOCHS = 4, 2, 3
PER_EPOCH = STEPS + EVALUATED


class Memory:
    """Rows that roll-outs at the head of each epoch add, in a list and in an array."""

    def __init__(self) -> None:
        self.rows: list[torch.Tensor] = []
        self.array = np.zeros((20, 2), np.float32)

    def add(self, row: torch.Tensor) -> None:
        self.array[len(self.rows)] = row.numpy()
        self.rows.append(row)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "array": self.array}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.array = state["rows"], state["array"]


def train(folder: Path | None, *, dies_at: int = -1) -> dict[str, Any]:
    """A loop as people write them, in which much stands around the passes."""
    torch.manual_seed(0)
    x = torch.randn(8 * STEPS, 6)
    body, head, cell = nn.Linear(6, 6), nn.Linear(6, 2), nn.GRUCell(6, 6)
    body.requires_grad_(requires_grad=False)
    optimizer = torch.optim.Adam([*head.parameters(), *cell.parameters()], 0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    average, memory, own = AveragedModel(head), Memory(), torch.Generator().manual_seed(3)
    parts = {"body": body, "head": head, "cell": cell, "average": average, "own": own}
    objects = {**parts, "optimizer": optimizer, "schedule": schedule, "memory": memory}
    run: Any = PlainLoop()
    if folder is not None:
        run = colabkit.Run(folder, save_every=1, progress=False, **objects)
    kept = run.state(hidden=torch.zeros(1, 6), done=[], episode=torch.zeros(2), rows=[], loss=0.0)
    data = TensorDataset(x, (x[:, 0] > 0).long())
    for epoch in run.epochs(EPOCHS):
        kept.hidden = torch.zeros(1, 6)
        kept.episode = head(torch.randn(6, generator=own)).detach()
        memory.add(kept.episode)
        kept.rows.append(epoch)
        if epoch == 1:
            body.requires_grad_(requires_grad=True)
            optimizer.add_param_group({"params": list(body.parameters()), "lr": 1e-3})
        for model in (body, head, cell):
            model.train()
        for inputs, target in run.batches(DataLoader(data, 8)):
            hidden = cell(body(inputs), kept.hidden.expand(len(inputs), 6))
            kept.hidden = hidden.mean(0, keepdim=True).detach()
            loss = functional.cross_entropy(head(hidden) + kept.episode + len(memory.rows), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            kept.loss = loss.item()
            end(run, dies_at)
        kept.done.append((epoch, kept.loss))
        schedule.step()
        average.update_parameters(head)
        for model in (body, head, cell):
            model.eval()
        with torch.no_grad():
            for inputs, _ in run.batches(DataLoader(data, 8 * STEPS // EVALUATED)):
                head(body(inputs))
                end(run, dies_at)
    states = {
        name: copy.deepcopy(each.state_dict()) for name, each in objects.items() if name != "own"
    }
    return {**states, "kept": [kept.hidden, kept.done, kept.episode, kept.rows]}


def end(run: Any, dies_at: int) -> None:
    if 0 <= run.step - dies_at + 1 <= 1 and not isinstance(run, PlainLoop):
        run.flush()
        if run.step == dies_at:
            kill_self()


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert_same(list(one.values()), list(other.values()))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


@pytest.mark.parametrize(
    "steps",
    [(2, PER_EPOCH + 2), (PER_EPOCH, PER_EPOCH + 1), (STEPS + 1, PER_EPOCH + STEPS + 1)],
    ids=["in training", "as an epoch begins", "in evaluation"],
)
def test_killed_anywhere_it_ends_as_the_plain_loop(steps, tmp_path):
    for step in steps:
        assert not in_child(
            lambda step=step: train(tmp_path / "run", dies_at=step), report=tmp_path / "report"
        )
    assert_same(train(None), train(tmp_path / "run"))


@pytest.mark.parametrize("again", [False, True])
def test_a_loop_that_is_through_is_not_where_a_resume_begins(again, tmp_path):
    """The names that its body sets are used behind it."""

    def loop() -> list[int]:
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run = colabkit.Run(tmp_path, progress=False, save_every=1, m=model, o=optimizer)
        seen = []
        for _ in run.epochs(2):
            for (x,) in run.batches(DataLoader(TensorDataset(torch.ones(4, 2)), 2)):
                optimizer.zero_grad()
                loss = model(x).sum()
                loss.backward()
                optimizer.step()
            run.flush()
            seen.append(run.step)
            if again is None:
                raise ConnectionError
            loss.item()
        return seen

    if again:
        again = None
        with pytest.raises(ConnectionError):
            loop()
        again = True
    assert loop() == [2, 4]


class Around(torch.optim.Optimizer):
    """An optimizer around another, made without ``super().__init__`` as the well-known ones are."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        self.base, self.count = base, 0
        self.param_groups, self.defaults, self.state = base.param_groups, base.defaults, base.state
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    def step(self, closure: Any = None) -> Any:
        loss = self.base.step(closure)
        self.count += 1
        if self.count % 2 == 0:
            own = [p for group in self.param_groups for p in group["params"]]
            for parameter, slow in zip(own, self.slow, strict=True):
                slow.add_(parameter.detach() - slow, alpha=0.5)
                parameter.data.copy_(slow)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"base": self.base.state_dict(), "slow": self.slow, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base.load_state_dict(state["base"])
        self.slow, self.count = state["slow"], state["count"]


def test_an_optimizer_around_another_that_is_made_by_half_goes_on(tmp_path):
    def loop(folder: Path | None, *, dies_at: int = -1) -> list[Any]:
        torch.manual_seed(0)
        model, run = nn.Linear(6, 2), PlainLoop()
        optimizer = Around(torch.optim.Adam(model.parameters(), lr=0.05))
        if folder is not None:
            run = colabkit.Run(folder, progress=False, save_every=1, m=model, o=optimizer)
        for _ in run.epochs(2):
            for (x,) in run.batches(DataLoader(TensorDataset(torch.randn(20, 6)), 4)):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
                end(run, dies_at)
        return [model.state_dict(), optimizer.slow, optimizer.count]

    assert not in_child(lambda: loop(tmp_path / "run", dies_at=3), report=tmp_path / "report")
    alone, resumed = loop(tmp_path / "alone"), loop(tmp_path / "run")
    assert_same(alone, resumed)


class Mixed(torch.utils.data.Dataset):
    """Mixed targets, and of the validation such that are all of one class each by chance."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        hot = functional.one_hot(torch.tensor([index % 3, (index + 1) % 3]), 3).float()
        return torch.full((4,), float(index)), self.share * hot[0] + (1 - self.share) * hot[1]


def test_targets_of_a_validation_do_not_decide_what_training_has_found_out(tmp_path):
    def fit(epochs: int, **options: Any) -> Any:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        colabkit.fit(model, Mixed(0.7), tmp_path / "run", epochs=epochs, progress=False, **options)
        return model

    fit(1, validation_data=Mixed(1.0))
    fit(2, validation_data=Mixed(1.0))
    with pytest.raises(ArgumentError, match="one-hot"):
        colabkit.fit(nn.Linear(4, 3), Mixed(1.0), tmp_path / "other", progress=False)


def test_a_rate_set_behind_run_is_the_checkpoints_again_and_that_is_said(tmp_path, capsys):
    def rates(behind: float | None = None) -> list[float]:
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        folder = tmp_path / "run"
        run = colabkit.Run(folder, model=model, optimizer=optimizer, save_every=1)
        if behind is not None:
            optimizer.param_groups[0]["lr"] = behind
        seen = []
        for _ in run.epochs(2):
            for _ in run.batches(DataLoader(TensorDataset(torch.ones(6, 2)), 2)):
                seen.append(optimizer.param_groups[0]["lr"])
                if behind is None:
                    run.flush()
                    if run.step == 2:
                        kill_self()
        return seen

    assert not in_child(rates, report=tmp_path / "report")
    assert set(rates(0.7)) == {0.1}
    said = capsys.readouterr().out
    assert "Set behind Run, and comes back to what the checkpoint has: lr of optimizer 0.7" in said
