"""Sources that go on by a state of their own: whether they are what they were, is compared too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import CheckpointMismatchError
from tests.torch.test_forms import Gathering, Prepared

SAMPLES = 44


def pairs(scale: float = 1.0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(1))
    return list(zip(x * scale, (x.sum(1) > 0).long(), strict=True))


class Rows(torch_data.IterableDataset):
    """Knows its place, and goes back to the beginning at its end."""

    def __init__(self, scale: float = 1.0) -> None:
        self.rows = pairs(scale)
        self.place = 0

    def __iter__(self) -> Iterator[Any]:
        while self.place < SAMPLES:
            self.place += 1
            yield self.rows[self.place - 1]
        self.place = 0

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


def plain(scale: float = 1.0) -> Any:
    return torch_data.DataLoader(Rows(scale), batch_size=8)


def stateful_loader(scale: float = 1.0) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(Rows(scale), batch_size=8)


def nodes(scale: float = 1.0) -> Any:
    from torchdata import nodes as tn

    rows = tn.MapStyleWrapper(dict(enumerate(pairs(scale))), sampler=range(SAMPLES))
    return tn.Loader(
        tn.ParallelMapper(tn.Batcher(rows, 8, drop_last=False), torch_data.default_collate, 2)
    )


def prepared(scale: float = 1.0) -> Any:
    return Prepared(plain(scale), Gathering())


SOURCES = {
    "a dataset": plain,
    "a loader": stateful_loader,
    "nodes": nodes,
    "a prepared loader": prepared,
}


def fit(folder: Path, data: Any, **more: Any) -> colabkit.History:
    torch.manual_seed(0)
    options = {"epochs": 3, "progress": False, "device": "cpu", **more}
    return colabkit.fit(nn.Linear(6, 2), data, folder, **options)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("stops", [(3, 4), (5, 6), (6, 13), (1, 17)])
def test_a_source_that_is_what_it_was_goes_on_as_if_nothing_had_happened(name, stops, tmp_path):
    make = SOURCES[name]
    alone = fit(tmp_path / "alone", make())
    for max_steps in (*stops, None):
        killed = fit(tmp_path / "killed", make(), max_steps=max_steps)
    assert killed.steps["loss"].tolist() == alone.steps["loss"].tolist()
    assert len(alone.steps["loss"]) == 18
    assert not killed.verdict.reasons


@pytest.mark.parametrize("name", ["a dataset", "a loader", "a prepared loader"])
@pytest.mark.parametrize("stops", [(3,), (2, 4)])
def test_a_source_of_other_data_is_an_error_that_says_so(name, stops, tmp_path):
    make = SOURCES[name]
    for max_steps in stops:
        fit(tmp_path, make(), max_steps=max_steps)
    with pytest.raises(CheckpointMismatchError, match="its first batch, of epoch 1, has another"):
        fit(tmp_path, make(2.0))
    accepted = fit(tmp_path, make(2.0), data_changed="accept")
    assert len(accepted.steps["loss"]) == 18
    assert "the data is not what it was" in str(accepted.verdict)


def test_other_data_of_nodes_whose_threads_may_draw_is_said(tmp_path, capsys):
    fit(tmp_path, nodes(), max_steps=3)
    resumed = fit(tmp_path, nodes(2.0), progress=True)
    assert "The data is not what it was: its first batch" in capsys.readouterr().out
    assert "the data is not what it was" in str(resumed.verdict)


def test_a_loop_of_ones_own_compares_them_too(tmp_path):
    def trained(scale: float, max_steps: int | None = None) -> None:
        run = colabkit.Run(tmp_path, model=nn.Linear(6, 2), progress=False, max_steps=max_steps)
        for _ in run.batches(plain(scale)):
            pass

    trained(1.0, 2)
    with pytest.raises(CheckpointMismatchError, match="its first batch"):
        trained(2.0)
    trained(1.0)


class Stage:
    """A stage of a stream, as libraries keep it: a function, bound to what it is given."""

    def __init__(self, name: str, *more: Any) -> None:
        def function(items: Any) -> Any:
            return items

        function.__module__, function.__name__ = "webdataset.filters", name
        self.f = function


class Pipeline(torch_data.IterableDataset):
    """Gives what its last stage makes of the samples."""

    def __init__(self, *stages: str, size: int | None) -> None:
        self.pipeline = [Stage(name) for name in ("_tarfile_to_samples", *stages)]
        self.size = size

    def __iter__(self) -> Iterator[Any]:
        if self.size is None:
            yield from pairs()
            return
        yield from torch_data.DataLoader(pairs(), batch_size=self.size)


def piped() -> torch_data.IterDataPipe:
    from torch.utils.data.datapipes.iter import IterableWrapper

    return IterableWrapper(pairs(), deepcopy=False)


STREAMS = {
    "batched": (lambda: Pipeline("_map", "_batched", size=8), 8),
    "batched, then changed": (lambda: Pipeline("_batched", "_map", size=8), 8),
    "batched and taken apart": (lambda: Pipeline("_batched", "_unbatched", size=None), 32),
    "samples": (lambda: Pipeline("_map", size=None), 32),
    "a pipe that makes lists": (lambda: piped().batch(8), 8),
    "a pipe that makes batches": (lambda: piped().batch(8).collate(), 8),
    "a pipe of samples": (piped, 32),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_makes_batches_is_not_batched_again(name, tmp_path):
    make, size = STREAMS[name]
    seen: list[int] = []

    class Seen(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().forward(x)

    colabkit.fit(Seen(6, 2), make(), tmp_path, progress=False, device="cpu")
    assert seen == [size] * (SAMPLES // size) + [SAMPLES % size]


class GoesBack(torch_data.IterableDataset):
    """Goes back to the state that it was given, for as long as its epoch lasts.

    So do the streams of Hugging Face's datasets.
    """

    _ex_iterable = None

    def __init__(self) -> None:
        self.rows = pairs()
        self.epoch = self.place = 0
        self.given: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:
        goes_back = self.given is not None and self.given["epoch"] == self.epoch
        self.place = self.given["place"] if goes_back and self.given else 0
        while self.place < SAMPLES:
            self.place += 1
            yield self.rows[self.place - 1]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int] | None) -> None:
        self.given = state


def in_a_loader_of_its_own() -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(GoesBack(), batch_size=8)


@pytest.mark.parametrize(
    "make", [lambda: torch_data.DataLoader(GoesBack(), batch_size=8), in_a_loader_of_its_own]
)
@pytest.mark.parametrize("stops", [(3, 14), (6, 12)])
def test_a_stream_that_goes_back_to_its_state_is_read_whole_the_next_time(make, stops, tmp_path):
    """Twice in each of two epochs: six batches a pass."""
    seen: list[float] = []
    for max_steps in (*stops, None):
        data = make()
        run = colabkit.Run(tmp_path, model=nn.Linear(6, 2), progress=False, max_steps=max_steps)
        for _ in run.epochs(2):
            for _ in range(2):
                seen += [float(x.sum()) for x, _ in run.batches(data)]
    once = [float(x.sum()) for x, _ in torch_data.DataLoader(pairs(), batch_size=8)]
    assert seen == once * 4


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


def fit_until(folder: Path, dies: int | None, scale: float = 1.0) -> colabkit.History:
    class Dying(colabkit.Callback):
        def on_epoch_begin(self, run: Any, epoch: int) -> None:
            if epoch == dies:
                run.flush()
                raise DeathError

    return fit(folder, reordered(scale), callbacks=[Dying()], monitor="loss", save_every=None)


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
