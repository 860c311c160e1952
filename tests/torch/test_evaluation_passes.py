"""A pass that only evaluates begins anew where it was broken off: its sums are the loop's own."""

from __future__ import annotations

import signal
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import colabkit
from tests.torch.cases import arrays, loader, network
from tests.torch.killing import in_child, kill_self

EVALUATED = 4


@pytest.fixture(autouse=True)
def one_thread():
    """As children have that are killed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


class Life:
    """A session of a person's loop, which ends at a batch of its evaluation."""

    without_gradients: Any = torch.no_grad

    def __init__(self, folder: Path, *, ends_at: int = -1, end: Any = interrupt) -> None:
        self.folder = folder
        self.ends_at = ends_at
        self.end = end
        self.seen: list[int] = []

    def network(self) -> Any:
        return network(dropout=0.2, norm=True)

    def train(self, *, mode: bool = False, logs: bool = False, trains: bool = True) -> Any:
        model = self.network()
        objects: dict[str, Any] = {"model": model}
        if trains:
            objects["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        run = colabkit.Run(self.folder / "run", save_every=1, progress=False, **objects)
        for _ in run.epochs(2):
            model.train()
            for x, y in run.batches(loader()):
                loss = functional.cross_entropy(model(x), y)
                if trains:
                    objects["optimizer"].zero_grad()
                    loss.backward()
                    objects["optimizer"].step()
            run.log_epoch(val=self.evaluated(run, model, mode=mode, logs=logs))
        return run

    def evaluated(self, run: Any, model: Any, *, mode: bool, logs: bool) -> float:
        model.train(mode)
        total = 0.0
        with self.without_gradients():
            for x, y in run.batches(arrays(), batch_size=11, shuffle=False):
                loss = functional.cross_entropy(model(x), y)
                total += float(loss)
                self.seen.append(run.batch)
                if logs:
                    run.log(loss=loss)
                if run.epoch == 0 and run.batch == self.ends_at:
                    run.flush()
                    self.end()
        return total


def facts(run: Any) -> tuple[Any, ...]:
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history.epochs]
    return rows, run.step


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("ends_at", range(EVALUATED))
def test_what_a_loop_sums_up_is_that_of_one_never_interrupted(
    ends_at, without_gradients, tmp_path, monkeypatch
):
    monkeypatch.setattr(Life, "without_gradients", without_gradients)
    alone = Life(tmp_path / "alone").train()
    broken = Life(tmp_path / "broken", ends_at=ends_at)
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    again = Life(tmp_path / "broken")
    run = again.train()
    assert facts(run) == facts(alone)
    assert again.seen == list(range(EVALUATED)) * 2


@pytest.mark.parametrize("ends_at", [0, EVALUATED - 1])
def test_one_killed_in_its_evaluation_evaluates_anew(ends_at, tmp_path):
    alone = Life(tmp_path / "alone").train()
    broken = Life(tmp_path / "broken", ends_at=ends_at, end=kill_self)
    assert not in_child(broken.train, report=tmp_path / "report")
    assert facts(Life(tmp_path / "broken").train()) == facts(alone)


def test_gradients_that_an_earlier_loop_has_left_to_wait_hold_nothing_up(tmp_path, monkeypatch):
    """Accelerate counts them for the process, whichever loop it was."""
    state = types.SimpleNamespace(_shared_state={"sync_gradients": False})
    monkeypatch.setitem(sys.modules, "accelerate.state", types.SimpleNamespace(GradientState=state))
    broken = Life(tmp_path, ends_at=1)
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    assert broken.seen == [0, 1]


def test_two_evaluations_in_a_row_begin_with_the_first(tmp_path):
    def train(*, ends: bool) -> list[tuple[float, float]]:
        model = network(dropout=0.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run = colabkit.Run(tmp_path / "run", progress=False, model=model, optimizer=optimizer)
        found = []
        for _ in run.epochs(1):
            for x, y in run.batches(loader()):
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            sums = []
            model.eval()
            for size in (11, 22):
                sums.append(0.0)
                for x, y in run.batches(arrays(), batch_size=size, shuffle=False):
                    sums[-1] += float(functional.cross_entropy(model(x), y).detach())
                    if ends and size == 22:
                        interrupt()
            found.append(tuple(sums))
        return found

    with pytest.raises(KeyboardInterrupt):
        train(ends=True)
    (again,) = train(ends=False)
    assert again[0] > again[1] > 0


def test_one_whose_losses_are_logged_evaluates_anew_and_logs_them_once(tmp_path):
    alone = Life(tmp_path / "alone").train(logs=True)
    broken = Life(tmp_path / "broken", ends_at=1, end=kill_self)
    assert not in_child(lambda: broken.train(logs=True), report=tmp_path / "report")
    again = Life(tmp_path / "broken")
    run = again.train(logs=True)
    assert again.seen == list(range(EVALUATED)) * 2
    assert facts(run) == facts(alone)
    np.testing.assert_array_equal(run.history.steps["loss"], alone.history.steps["loss"])


def test_one_in_training_mode_evaluates_anew_with_the_statistics_that_it_began_with(tmp_path):
    alone = Life(tmp_path / "alone").train(mode=True)
    with pytest.raises(KeyboardInterrupt):
        Life(tmp_path / "broken", ends_at=1).train(mode=True)
    again = Life(tmp_path / "broken")
    run = again.train(mode=True)
    assert again.seen == list(range(EVALUATED)) * 2
    assert facts(run) == facts(alone)


class Counting(nn.Module):
    """Changes buffers of its own in each pass while it is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(dropout=0.2)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("center", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.inner(x)
        if self.training:
            self.seen += len(x)
            self.center.mul_(0.9).add_(found.detach().mean(0), alpha=0.1)
        return found - self.center


class CountingLife(Life):
    def network(self) -> Any:
        return Counting()


def test_one_in_training_mode_evaluates_anew_with_buffers_of_its_own_as_it_began(tmp_path):
    alone = CountingLife(tmp_path / "alone").train(mode=True)
    broken = CountingLife(tmp_path / "broken", ends_at=1, end=kill_self)
    assert not in_child(lambda: broken.train(mode=True), report=tmp_path / "report")
    again = CountingLife(tmp_path / "broken")
    run = again.train(mode=True)
    assert again.seen == list(range(EVALUATED)) * 2
    assert facts(run) == facts(alone)


def test_a_pass_that_only_predicts_goes_on_at_the_batch(tmp_path):
    alone = Life(tmp_path / "alone").train(trains=False)
    with pytest.raises(KeyboardInterrupt):
        Life(tmp_path / "broken", ends_at=1).train(trains=False)
    again = Life(tmp_path / "broken")
    run = again.train(trains=False)
    assert again.seen == [2, 3, 0, 1, 2, 3]
    assert run.step == alone.step


class BankLife(Life):
    """A loop that keeps a bank too large to be held twice, and may write into it."""

    def __init__(self, folder: Path, bank: Any, *, writes: bool) -> None:
        super().__init__(folder)
        self.bank, self.writes = bank, writes

    def evaluated(self, run: Any, model: Any, *, mode: bool, logs: bool) -> float:
        kept = run.state(bank=self.bank)
        model.train(mode)
        total = 0.0
        with torch.no_grad():
            for x, y in run.batches(arrays(), batch_size=11, shuffle=False):
                total += float(functional.cross_entropy(model(x), y))
                if self.writes:
                    kept.bank[run.batch] = total
                run.flush()  # the next step is saved
        return total


@pytest.mark.parametrize(
    ("bank", "writes", "is_named"),
    [
        (lambda: torch.zeros(2_200_000), True, True),
        (lambda: torch.zeros(2_200_000), False, False),
        (lambda: np.zeros(1_100_000), True, True),
        (lambda: np.zeros(1_100_000), False, False),
        # Of 68 MB nobody looks whether they have changed.
        (lambda: np.zeros(8_500_000), False, True),
    ],
)
def test_a_kept_value_too_large_to_be_held_through_an_evaluation_is_named(
    bank, writes, is_named, tmp_path
):
    run = BankLife(tmp_path, bank(), writes=writes).train()
    named = ["the kept bank is too large to be held" in each for each in run.verdict.reasons]
    assert named.count(True) == is_named
    # What the loop sums up itself is lost then.
    assert len(named) == (2 if is_named else 0)
