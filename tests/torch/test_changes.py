"""What a person changes on purpose at a resume is taken, and said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import colabkit
from colabkit.errors import (
    ArgumentError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    DivergedError,
)
from tests.torch.cases import arrays, network


def fitted(folder: Path, *, lr: float = 0.1, schedule: Any = None, **more: Any) -> Any:
    model = network(dropout=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=more.pop("decay", 0.0))
    if schedule is not None:
        more["scheduler"] = schedule
    given = {"epochs": 2, "batch_size": 8, "device": "cpu", **more}
    history = colabkit.fit(model, arrays(), folder, optimizer=optimizer, **given)
    return model, optimizer, history


def rates(history: colabkit.History) -> list[float]:
    return [row["lr"] for row in history.epochs]


def test_another_learning_rate_and_weight_decay_are_taken_and_said(tmp_path, capsys):
    fitted(tmp_path)
    _, optimizer, history = fitted(tmp_path, lr=0.02, decay=0.5, epochs=4)
    assert rates(history) == [0.1, 0.1, 0.02, 0.02]
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    said = capsys.readouterr().out
    assert "lr of optimizer 0.1 → 0.02" in said
    assert "weight_decay of optimizer 0.0 → 0.5" in said
    _, _, history = fitted(tmp_path, lr=0.02, decay=0.5, epochs=5)
    assert rates(history)[-1] == 0.02
    assert "→" not in capsys.readouterr().out


def test_a_rate_that_the_training_itself_has_changed_stays(tmp_path):
    def halve(event: Any) -> None:
        if event.name == "epoch_end":
            event.run._adapter._state.optimizers["optimizer"].param_groups[0]["lr"] *= 0.5

    fitted(tmp_path, callbacks=[halve], progress=False)
    _, _, history = fitted(tmp_path, epochs=3, callbacks=[halve], progress=False)
    assert rates(history) == [0.1, 0.05, 0.025]


def _stretched(epochs: int) -> dict[str, Any]:
    def linear(optimizer: Any) -> Any:
        return lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 - epoch / epochs)

    def chained(optimizer: Any) -> Any:
        first = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2)
        then = lr_scheduler.CosineAnnealingLR(optimizer, epochs - 2)
        return lr_scheduler.SequentialLR(optimizer, [first, then], milestones=[2])

    return {
        "cosine": "cosine",
        "onecycle": "onecycle",
        "lambda": linear,
        "sequential": chained,
        "steps": lambda optimizer: lr_scheduler.StepLR(optimizer, epochs // 2),
    }


@pytest.mark.parametrize("name", _stretched(4))
def test_a_longer_schedule_goes_on_as_if_it_had_been_so_long_at_once(name, tmp_path, capsys):
    fitted(tmp_path / "run", schedule=_stretched(4)[name], epochs=4)
    capsys.readouterr()
    _, _, longer = fitted(tmp_path / "run", schedule=_stretched(8)[name], epochs=8)
    _, _, at_once = fitted(tmp_path / "once", schedule=_stretched(8)[name], epochs=8)
    assert rates(longer)[4:] == rates(at_once)[4:]
    assert "Taken as passed now" in capsys.readouterr().out


def test_another_rate_scales_the_schedule_it_begins(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fitted(
            tmp_path / "run", schedule="cosine", epochs=4, save_every=1, callbacks=[StopAfter(2)]
        )
    _, _, history = fitted(tmp_path / "run", lr=0.02, schedule="cosine", epochs=4)
    _, _, at_once = fitted(tmp_path / "once", lr=0.02, schedule="cosine", epochs=4)
    assert rates(history)[2:] == rates(at_once)[2:]


class StopAfter(colabkit.Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        run.flush()
        if epoch + 1 > self.epochs:
            raise ZeroDivisionError


def test_a_smaller_batch_goes_on_at_the_same_sample(tmp_path, capsys):
    seen: list[np.ndarray] = []

    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach().numpy().copy())
            return self.head(x)

    def train(size: int, *, until: int | None) -> None:
        def stop(event: Any) -> None:
            event.run.flush()
            if event.name == "batch_end" and event.step == until:
                raise ZeroDivisionError

        callbacks = [] if until is None else [stop]
        options = {"save_every": 1, "device": "cpu", "epochs": 1, "callbacks": callbacks}
        x, y = arrays()
        colabkit.fit(Seen(), (x[:40], y[:40]), tmp_path, batch_size=size, **options)

    with pytest.raises(ZeroDivisionError):
        train(8, until=4)
    done = colabkit.checkpoints(tmp_path)[0].step
    seen[:] = seen[:done]
    train(4, until=None)
    assert "The batch size was 8 and is 4; the epoch goes on at sample" in capsys.readouterr().out
    rows = np.concatenate(seen)
    assert len(rows) == 40
    assert len(np.unique(rows, axis=0)) == 40


def test_weights_always_means_weights_only(tmp_path, capsys):
    first, _, _ = fitted(tmp_path, progress=False)
    began: list[bool] = []
    model = network(dropout=0.0)

    def look(event: Any) -> None:
        if event.name == "train_begin":
            pairs = zip(model.parameters(), first.parameters(), strict=True)
            began.append(all(torch.equal(a, b) for a, b in pairs))

    history = colabkit.fit(model, arrays(), tmp_path, epochs=2, resume="weights", callbacks=[look])
    assert began == [True]
    assert len(history.epochs) == 2
    assert not history.resumes
    assert 'Take resume="weights" out again' in capsys.readouterr().out


def test_a_finished_run_that_is_called_again_is_no_resume_until_it_trains_on(tmp_path, capsys):
    def fit(epochs: int) -> colabkit.History:
        return colabkit.fit(
            network(), arrays(), tmp_path, epochs=epochs, device="cpu", batch_size=8
        )

    fit(2)
    capsys.readouterr()
    assert not fit(2).resumes
    said = capsys.readouterr()
    assert "Restored as it ended, after epoch 2" in said.out + said.err
    assert "Resumed at epoch" not in said.out + said.err
    assert len(fit(3).resumes) == 1
    said = capsys.readouterr()
    assert "Resumed at epoch 3" in said.out + said.err


def test_a_step_or_the_best_goes_on_from_there_and_deletes_nothing(tmp_path):
    given = {"epochs": 4, "save_every": 2, "keep": 9, "validation_data": arrays()}
    alone, _, whole = fitted(tmp_path, progress=False, **given)
    before = {info.name for info in colabkit.checkpoints(tmp_path)}
    middle = colabkit.checkpoints(tmp_path)[2].step
    again, _, history = fitted(tmp_path, resume=middle, progress=False, **given)
    pairs = zip(alone.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert history.numbers()["epochs"] == whole.numbers()["epochs"]
    assert history.resumes[0].step == middle
    assert before < {info.name for info in colabkit.checkpoints(tmp_path, verify=True)}
    best = next(info for info in colabkit.checkpoints(tmp_path) if info.is_best)
    _, _, history = fitted(tmp_path, resume="best", progress=False, **given)
    assert history.resumes[-1].step == best.step
    with pytest.raises(CheckpointNotFoundError, match="whole ones are at steps"):
        fitted(tmp_path, resume=9999, progress=False)
    with pytest.raises(ArgumentError):
        fitted(tmp_path, resume=-1, progress=False)
    with pytest.raises(CheckpointMismatchError):
        fitted(tmp_path, resume="best", seed=4, progress=False)


def test_more_epochs_or_more_patience_train_on_after_an_early_stop(tmp_path, capsys):
    def train(epochs: int, patience: int) -> int:
        stopping = colabkit.EarlyStopping("loss", patience=patience, min_delta=0.5)
        _, _, history = fitted(tmp_path, lr=0.0, epochs=epochs, callbacks=[stopping])
        return len(history.epochs)

    assert train(9, 2) == 3
    assert train(9, 2) == 3
    assert "loss has not improved for 2 epochs" in capsys.readouterr().out.splitlines()[-1]
    assert train(9, 4) == 5
    assert "patience is 4 epochs now" in capsys.readouterr().out
    assert train(12, 4) == 6


class Breaking(nn.Module):
    """Has a finite loss, and at one step a gradient that is none."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.head, self.at, self.calls = nn.Linear(6, 3), at, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        out = self.head(x)
        if self.calls == self.at:
            out = out + torch.sqrt((out * 0).abs())
        return out


def broken(folder: Path, at: int) -> tuple[nn.Module, colabkit.Run]:
    torch.manual_seed(6)
    model = Breaking(at)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, save_every=1, progress=False)
    x, y = arrays()
    for _ in run.items(range(8)):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.flush()
    return model, run


def test_weights_that_become_nan_end_a_run_and_never_push_out_the_last_finite_ones(tmp_path):
    with pytest.raises(DivergedError, match="between step 4 and step 5") as caught:
        broken(tmp_path, at=5)
    assert math.isnan(caught.value.loss)
    steps = {info.step: info.is_finite for info in colabkit.checkpoints(tmp_path)}
    assert steps == {5: False, 4: True, 3: True}
    mended, run = broken(tmp_path, at=-1)
    assert run.step == 8
    assert run.history.resumes[0].step == 4
    alone, _ = broken(tmp_path.with_name("alone"), at=-1)
    pairs = zip(alone.state_dict().values(), mended.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_diverged_at_once_again_is_told_to_begin_anew(tmp_path):
    def train(lr: float, **more: Any) -> None:
        model = nn.Linear(6, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        x = arrays()[0]
        data = [(x[:8], x[:8].sum(1, keepdim=True))] * 60
        more["callbacks"] = [lambda event: event.run.flush()]
        options = {"save_every": 1, "device": "cpu", "progress": False, **more}
        colabkit.fit(model, data, tmp_path, optimizer=optimizer, **options)

    with pytest.raises(DivergedError, match="the change is taken"):
        train(30.0)
    with pytest.raises(DivergedError, match="begin anew with resume=False"):
        train(0.01)
    train(0.01, resume=False)


class Diverging:
    """One model of a session, whose cells are run again with other settings.

    Its run is at step 2 when the rate becomes far too large.
    """

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(6)
        self.folder, self.model = folder, nn.Linear(6, 1)
        self.train(epochs=1, lr=0.01)

    def train(self, epochs: int, **passed: Any) -> colabkit.History:
        x = arrays()[0][:16]
        options = {"optimizer": "sgd", "device": "cpu", "progress": False, **passed}
        data = (x, x.sum(1, keepdim=True))
        return colabkit.fit(self.model, data, self.folder, epochs=epochs, batch_size=8, **options)

    def diverge(self) -> None:
        with pytest.raises(DivergedError):
            self.train(epochs=40, lr=1e30)
        assert not self.model.weight.isfinite().all()


@pytest.mark.parametrize(
    "passed", [{"lr": 0.02}, {"optimizer": "adam"}, {"lr": 0.02, "phase": "slowly"}]
)
def test_what_diverged_goes_on_with_finite_weights_whatever_is_changed(tmp_path, passed):
    mended = Diverging(tmp_path / "mended")
    mended.diverge()
    mended.train(epochs=5, **passed)
    alone = Diverging(tmp_path / "alone")
    alone.train(epochs=5, **passed)
    assert torch.equal(mended.model.weight, alone.model.weight)


def test_a_model_that_has_diverged_is_no_beginning(tmp_path):
    session = Diverging(tmp_path)
    session.diverge()
    with pytest.raises(DivergedError, match="the cell that makes it runs again"):
        session.train(epochs=2, resume=False)
    kept = {"model": session.model, "optimizer": torch.optim.SGD(session.model.parameters())}
    run = colabkit.Run(tmp_path, resume=False, progress=False, **kept)

    def train() -> None:
        for _ in run.items(range(3)):
            run.flush()

    with pytest.raises(DivergedError, match="Run the cell that makes it again"):
        train()


def with_moments(folder: Path, written: str, number: float) -> tuple[nn.Module, colabkit.Run]:
    """Trains with Adam, whose moments something has written into behind step 4."""
    torch.manual_seed(6)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, save_every=1, progress=False)
    x, y = arrays()
    for row in run.items(range(8)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        if row == 4 and written:
            optimizer.state[model.weight][written][1, 2] = number
        run.flush()
    return model, run


def test_moments_that_become_nan_end_a_run_and_never_push_out_the_last_finite_ones(tmp_path):
    with pytest.raises(DivergedError, match="between step 4 and step 5"):
        with_moments(tmp_path / "run", "exp_avg", math.nan)
    steps = {info.step: info.is_finite for info in colabkit.checkpoints(tmp_path / "run")}
    assert steps == {5: False, 4: True, 3: True}
    mended, run = with_moments(tmp_path / "run", "", 0.0)
    assert run.history.resumes[0].step == 4
    alone, _ = with_moments(tmp_path / "alone", "", 0.0)
    assert torch.equal(mended.weight, alone.weight)


def test_an_infinite_mean_of_squares_holds_a_weight_and_ends_no_run(tmp_path):
    model, run = with_moments(tmp_path / "run", "exp_avg_sq", math.inf)
    assert run.step == 8
    assert model.weight.isfinite().all()
    assert colabkit.checkpoints(tmp_path / "run")[0].is_finite


def test_weights_written_unseen_that_become_nan_end_a_run_as_well(tmp_path):
    model = nn.Linear(300, 300)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(tmp_path, model=model, optimizer=optimizer, save_every=1, progress=False)
    run._adapter._writes_unseen = True  # as a save finds it

    def train() -> None:
        for row in run.items(range(5)):
            optimizer.zero_grad()
            model(torch.ones(300)).sum().backward()
            optimizer.step()
            if row == 2:
                model.weight.data[7, 7] = math.nan
            run.flush()

    with pytest.raises(DivergedError, match="between step 2 and step 3"):
        train()
