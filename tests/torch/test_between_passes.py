"""Where sources with a state of their own stand between two passes, over sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import CheckpointMismatchError
from tests.torch.test_sources_with_state import SAMPLERS, SAMPLES, Rows, fit, of_nodes, pairs


class Reordered(Rows):
    """Gives each pass an order by the number of the pass, which only it counts."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(self.passes)
        order = torch.randperm(SAMPLES, generator=generator).tolist()
        while self.place < SAMPLES:
            self.place += 1
            yield self.rows[order[self.place - 1]]
        self.place, self.passes = 0, self.passes + 1

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place, "passes": self.passes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place, self.passes = state["place"], state["passes"]


class DeathError(Exception):
    """Ends a session between two epochs, behind the checkpoint of the best."""


def reordered(scale: float = 1.0) -> Any:
    return torch_data.DataLoader(Reordered(scale), batch_size=8)


def fit_until(
    folder: Path, dies: int | None, scale: float = 1.0, *, data: Any = None
) -> colabkit.History:
    class Dying(colabkit.Callback):
        def on_epoch_begin(self, run: Any, epoch: int) -> None:
            if epoch == dies:
                run.flush()
                raise DeathError

    data = data or reordered(scale)
    return fit(folder, data, callbacks=[Dying()], monitor="loss", save_every=None)


def loop_until(
    folder: Path, dies: int | None, *, anew: bool = False, twice: bool = False
) -> colabkit.History:
    torch.manual_seed(0)
    model = nn.Linear(6, 2)
    options = {"progress": False, "monitor": "falling", "save_every": None}
    run = colabkit.Run(folder, model=model, **options)
    kept = reordered()
    for epoch in run.epochs(4):
        if epoch == dies:
            run.flush()
            raise DeathError
        for _ in range(1 + twice):
            for x, _ in run.batches(reordered() if anew else kept):
                run.log(first=x[0, 0])
        run.log_epoch(falling=-epoch)
    return run.history


WAYS = {
    "fit": fit_until,
    "a loop": loop_until,
    "a loop that reads it twice": lambda *given: loop_until(*given, twice=True),
    "a loop that makes it anew": lambda *given: loop_until(*given, anew=True),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("dies", [(1,), (2,), (1, 2)])
def test_what_a_source_counts_over_its_passes_goes_on_between_two_epochs(name, dies, tmp_path):
    train = WAYS[name]
    alone = train(tmp_path / "alone", None)
    for epoch in dies:
        with pytest.raises(DeathError):
            train(tmp_path / "killed", epoch)
        assert colabkit.checkpoints(tmp_path / "killed")[0].epoch == epoch
    killed = train(tmp_path / "killed", None)
    (value,) = alone.steps
    # After one pass nobody can know whether a loop of one's own makes its source anew.
    is_told = dies[0] == 1 and name != "fit"
    assert any("the same object" in each for each in killed.verdict.reasons) == is_told
    assert len(killed.verdict.reasons) == is_told
    if not (is_told and name == "a loop that makes it anew"):
        assert killed.steps[value].tolist() == alone.steps[value].tolist()


def loop_of_several(folder: Path, chosen: Callable[[int], str], dies: int | None) -> colabkit.Run:
    """Reads in each epoch one source of several, or none."""
    options = {"progress": False, "monitor": "falling", "save_every": None}
    run = colabkit.Run(folder, model=nn.Linear(6, 2), **options)
    sources = {"a": reordered(), "b": reordered(2.0)}
    for epoch in run.epochs(8):
        if epoch == dies:
            run.flush()
            raise DeathError
        for name in chosen(epoch):
            for x, _ in run.batches(sources[name]):
                run.log(first=x[0, 0])
        run.log_epoch(falling=-epoch)
    return run


@pytest.mark.parametrize("dies", [4, 5, 7])
def test_a_source_that_is_read_in_every_third_epoch_goes_on(dies, tmp_path):
    def chosen(epoch: int) -> str:
        return "" if epoch % 3 else "a"

    alone = loop_of_several(tmp_path / "alone", chosen, None)
    with pytest.raises(DeathError):
        loop_of_several(tmp_path / "killed", chosen, dies)
    killed = loop_of_several(tmp_path / "killed", chosen, None)
    assert not killed.verdict.reasons
    assert killed.history.steps["first"].tolist() == alone.history.steps["first"].tolist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dies", [1, 2])
def test_an_order_of_nodes_is_the_same_where_a_session_ends_between_two_epochs(
    workers, dies, tmp_path
):
    def data() -> Any:
        return of_nodes(SAMPLERS["drawn in pieces"](), workers)

    alone = fit_until(tmp_path / "alone", None, data=data())
    with pytest.raises(DeathError):
        fit_until(tmp_path / "killed", dies, data=data())
    killed = fit_until(tmp_path / "killed", None, data=data())
    assert killed.steps["loss"].tolist() == alone.steps["loss"].tolist()


@pytest.mark.parametrize("dies", [1, 2])
def test_other_data_of_such_a_source_is_an_error_between_two_epochs_too(dies, tmp_path):
    with pytest.raises(DeathError):
        fit_until(tmp_path, dies)
    with pytest.raises(CheckpointMismatchError, match="its first batch, of epoch 1, has another"):
        fit_until(tmp_path, None, 2.0)


@pytest.mark.parametrize("save_every", [1, None])
def test_a_pass_that_is_left_loses_nothing_of_its_source_by_being_saved(save_every, tmp_path):
    run = colabkit.Run(tmp_path, model=nn.Linear(6, 2), progress=False, save_every=save_every)
    source, seen = reordered(), []
    for _ in run.epochs(2):
        for number, (x, _) in enumerate(run.batches(source)):
            seen.append(x[0, 0].item())
            if number == 2:
                break
        run.go_on("the test wants two")
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0)).tolist()
    firsts = [pairs()[order[at]][0][0].item() for at in range(0, SAMPLES, 8)]
    assert seen == firsts
