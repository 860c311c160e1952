"""Runs that a loop makes one after the other on one folder: folds of a cross-validation."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

import colabkit
from colabkit.errors import CheckpointMismatchError


def train(folder: Path, *, fails_at: int = -1, **options: Any) -> Any:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False, **options)
    for _ in run.epochs(1):
        for x in run.batches([torch.ones(2, 2)] * 2):
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
            if run.step == fails_at:
                raise OSError
    return run


def test_the_second_fold_in_one_folder_is_an_error_that_names_a_folder_for_each(tmp_path):
    done = []

    def folds() -> None:
        for fold in range(2):
            done.append((fold, train(tmp_path).step))

    with pytest.raises(CheckpointMismatchError, match="Nothing would be trained") as caught:
        folds()
    assert done == [(0, 2)]
    assert "{fold}" in caught.value.hint


def train_without_epochs(folder: Path) -> Any:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False)
    for x in run.batches([torch.ones(2, 2)] * 2):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
    return run


def goes_through(folder: Path) -> Any:
    run = colabkit.Run(folder, progress=False)
    for _ in run.items("ab"):
        pass
    return run


@pytest.mark.parametrize("one", [train_without_epochs, goes_through])
def test_folds_by_passes_alone_in_one_folder_are_an_error_as_well(one, tmp_path):
    done = []

    def folds() -> None:
        for fold in range(2):
            done.append((fold, one(tmp_path).step))

    with pytest.raises(CheckpointMismatchError, match="Nothing would be trained"):
        folds()
    assert done == [(0, 2)]
    assert one(tmp_path).step == 2  # called again it is found done
    assert [one(tmp_path / str(fold)).step for fold in range(2)] == [2, 2]


def test_one_run_for_all_folds_is_an_error_and_stages_of_it_are_none(tmp_path):
    run = colabkit.Run(tmp_path, progress=False)

    def goes_on_to(count: int) -> None:
        for _ in run.epochs(count):
            for _ in run.items("ab"):
                pass

    for stage in (1, 2):
        goes_on_to(stage)
    assert run.step == 4

    def folds() -> None:
        for _ in range(2):
            goes_on_to(3)

    with pytest.raises(CheckpointMismatchError, match="Nothing would be trained"):
        folds()
    assert run.step == 6
    goes_on_to(3)
    again = colabkit.Run(tmp_path, progress=False)
    for stage in (1, 2, 4):
        for _ in again.epochs(stage):
            for _ in again.items("ab"):
                pass
    assert again.step == 8


def test_folds_in_folders_of_their_own_are_trained_and_found_trained(tmp_path):
    runs = [train(tmp_path / str(fold)) for fold in range(2)]
    assert all(run.has_trained for run in runs)
    assert not train(tmp_path / "0").has_trained


def test_a_finished_run_that_is_called_again_is_found_trained(tmp_path):
    train(tmp_path)
    again = train(tmp_path)
    assert not again.has_trained
    assert again.step == 2


def test_tries_that_are_to_be_found_trained_say_so(tmp_path):
    steps = [train(tmp_path, data_changed="accept").step for _ in range(2)]
    assert steps == [2, 2]


def test_a_loop_that_tries_again_after_an_error_goes_on(tmp_path):
    for fails_at in (1, -1):
        with contextlib.suppress(OSError):
            run = train(tmp_path, fails_at=fails_at)
    assert run.has_trained
    assert run.step == 2
