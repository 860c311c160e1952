"""Runs that end before their data does: after so many steps, in time, or by SIGTERM."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import colabkit
from colabkit.errors import ArgumentError
from colabkit.runs.forecast import Forecast
from colabkit.runtime import SessionClock
from tests.torch.cases import arrays, loader, network
from tests.torch.killing import forked, reaped

QUIET: dict[str, Any] = {"progress": False, "device": "cpu"}


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_run_of_so_many_steps_ends_there_and_a_larger_number_goes_on(tmp_path, capsys):
    alone, first, again, last = (network() for _ in range(4))
    options = {"epochs": 3, "validation_data": arrays(), **QUIET}
    whole = colabkit.fit(alone, loader(), tmp_path / "alone", **options)
    steps = len(whole.steps["loss"])
    colabkit.fit(first, loader(), tmp_path / "run", max_steps=steps // 2, **options)
    assert colabkit.checkpoints(tmp_path / "run")[0].step == steps // 2
    spoken = {**options, "progress": True}
    colabkit.fit(again, loader(), tmp_path / "run", max_steps=steps // 2, **spoken)
    assert same_weights(first, again)
    assert "Nothing left to do" in capsys.readouterr().out
    history = colabkit.fit(last, loader(), tmp_path / "run", max_steps=steps, **options)
    assert same_weights(alone, last)
    assert history.numbers()["epochs"] == whole.numbers()["epochs"]


def test_a_loop_of_ones_own_ends_in_mid_epoch_and_goes_on_bit_for_bit(tmp_path):
    def train(folder: Path, **limits: Any) -> tuple[torch.nn.Module, colabkit.Run]:
        model = network()
        optimizer = torch.optim.Adam(model.parameters())
        run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False, **limits)
        for _ in run.epochs(3):
            for x, y in run.batches(loader()):
                loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(loss=loss)
            run.log_epoch(drawn=float(torch.rand(())))
        return model, run

    alone, whole = train(tmp_path / "alone")
    for most in (4, 11):
        _, ended = train(tmp_path / "run", max_steps=most)
        assert ended.step == most
        assert colabkit.checkpoints(tmp_path / "run")[0].step == most
    resumed, run = train(tmp_path / "run")
    assert same_weights(alone, resumed)
    assert run.history.numbers()["epochs"] == whole.history.numbers()["epochs"]


@pytest.mark.parametrize("limit", [0.2, "0.2s"])
def test_a_run_that_is_out_of_time_is_saved_and_goes_on_the_next_time(limit, tmp_path):
    options = {"epochs": 100_000, "max_time": limit, **QUIET}

    def steps_beyond(before: int) -> int:
        """Trains in sessions; on a busy machine the time of one may be up before its first step."""
        steps = before
        while steps == before:
            history = colabkit.fit(network(), arrays(), tmp_path, **options)
            steps = len(history.numbers()["steps"].get("loss", ()))
        return steps

    first = steps_beyond(0)
    assert 0 < first < 100_000
    assert colabkit.checkpoints(tmp_path)[0].step == first
    assert steps_beyond(first) > first


@pytest.mark.parametrize("limit", [{"max_steps": 0}, {"max_time": "soon"}, {"max_time": -1}])
def test_a_wrong_limit_is_named(limit, tmp_path):
    with pytest.raises(ArgumentError) as caught:
        colabkit.fit(network(), arrays(), tmp_path, **limit, **QUIET)
    assert caught.value.argument == next(iter(limit))


def terminate(event: Any) -> None:
    if event.name == "batch_end" and event.step == 4:
        os.kill(os.getpid(), signal.SIGTERM)


def fitted(folder: Path, **more: Any) -> torch.nn.Module:
    model = network()
    colabkit.fit(model, loader(), folder, epochs=2, save_every="300s", **{**QUIET, **more})
    return model


def test_sigterm_saves_and_then_ends_the_process_as_ever(tmp_path):
    child = forked(
        lambda: fitted(tmp_path / "run", callbacks=[terminate]) and None,
        report=tmp_path / "report",
    )
    status = reaped(child)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert colabkit.checkpoints(tmp_path / "run")[0].step == 4
    assert same_weights(fitted(tmp_path / "alone"), fitted(tmp_path / "run"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_sigterm_is_called_once_all_is_saved(tmp_path):
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        del number, frame
        seen.append(colabkit.checkpoints(tmp_path / "run")[0].step)

    previous = signal.signal(signal.SIGTERM, note)
    try:
        trained = fitted(tmp_path / "run", callbacks=[terminate])
        assert signal.getsignal(signal.SIGTERM) is note
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert seen == [4]
    assert same_weights(fitted(tmp_path / "alone"), trained)


def test_a_process_that_loads_data_is_ended_by_sigterm_at_once(tmp_path):
    run = colabkit.Run(tmp_path, progress=False)
    passing = run.items(range(9))
    next(passing)
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
    passing.close()


def test_a_run_longer_than_its_machine_is_foretold_once():
    now = [0.0]
    clock = SessionClock(0.0, 43_200.0, clock=lambda: 3600.0)
    forecast = Forecast(clock, clock=lambda: now[0])
    forecast.begin(100)
    assert forecast.words(105, 1_000_000) == ""
    now[0] = 20.0
    words = forecast.words(120, 100_120)
    assert "about 1 d to train, and about 11 h left here" in words
    assert "2 sessions more" in words
    assert forecast.words(140, 100_120) == ""
    short = Forecast(clock, clock=lambda: now[0])
    now[0] = 60.0
    assert short.words(40, 1000) == ""
