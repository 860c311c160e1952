"""Sources that go on by a state of their own: whether they are what they were, is compared too."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


class Stateless(torch_data.IterableDataset):
    """Begins at its beginning each time."""

    def __init__(self, scale: float = 1.0) -> None:
        self.rows = pairs(scale)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


def counting_loader(scale: float = 1.0) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(Stateless(scale), batch_size=8)


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
    "a loader that counts": counting_loader,
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


class Opened:
    """Is opened while another thread starts one, as a save under way does."""

    def __init__(self, scale: float, start_elsewhere: Callable[[], None]) -> None:
        self.rows, self.start_elsewhere = Rows(scale), start_elsewhere

    def __iter__(self) -> Iterator[Any]:
        self.start_elsewhere()
        return iter(torch_data.DataLoader(self.rows, batch_size=8))

    def state_dict(self) -> dict[str, int]:
        return self.rows.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.rows.load_state_dict(state)


def test_threads_that_others_start_meanwhile_are_not_taken_for_the_sources(tmp_path):
    over = threading.Event()

    def start_elsewhere() -> None:
        thread = threading.Thread(target=over.wait)
        other.submit(thread.start).result()

    with ThreadPoolExecutor(1) as other, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(over.set)
        other.submit(int).result()
        fit(tmp_path, Opened(1.0, start_elsewhere), max_steps=3)
        with pytest.raises(CheckpointMismatchError, match="its first batch, of epoch 1, has"):
            fit(tmp_path, Opened(2.0, start_elsewhere))
        assert not fit(tmp_path, Opened(1.0, start_elsewhere)).verdict.notices


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


class Told(torch_data.IterableDataset):
    """Has a state for a loader of its own, which tells it how much was read."""

    def __iter__(self) -> Iterator[Any]:
        return iter(pairs())

    def state_dict(self, read: int) -> dict[str, int]:
        return {"read": read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        raise NotImplementedError


def test_a_source_that_must_be_told_its_place_is_read_again(tmp_path):
    alone = fit(tmp_path / "alone", torch_data.DataLoader(Told(), batch_size=8))
    for max_steps in (3, 8, None):
        data = torch_data.DataLoader(Told(), batch_size=8)
        killed = fit(tmp_path / "killed", data, max_steps=max_steps)
    assert killed.steps["loss"].tolist() == alone.steps["loss"].tolist()
    assert not killed.verdict.reasons


class Drawing(Rows):
    """Draws its order where it begins to read, and keeps its place only."""

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(SAMPLES).tolist()
        while self.place < SAMPLES:
            self.place += 1
            yield self.rows[order[self.place - 1]]
        self.place = 0


class Buffering(Rows):
    """Reads ahead into a buffer that its state leaves out."""

    def __iter__(self) -> Iterator[Any]:
        waiting: list[Any] = []
        while self.place < SAMPLES or waiting:
            waiting += self.rows[self.place : self.place + 12 - len(waiting)]
            self.place = min(SAMPLES, self.place + 12 - len(waiting) + 1)
            yield waiting.pop(0)
        self.place = 0


def noisy(row: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return row[0] + torch.randn(6), row[1]


def of_nodes(sampler: Any, workers: int, *, draws: bool = False) -> Any:
    from torchdata import nodes as tn

    rows = tn.MapStyleWrapper(dict(enumerate(pairs())), sampler=sampler)
    if draws:
        rows = tn.ParallelMapper(rows, noisy, workers)
    batches = tn.Batcher(rows, 8, drop_last=False)
    return tn.Loader(tn.ParallelMapper(batches, torch_data.default_collate, workers))


class CountingTwice(Rows):
    """Reads again up to its place where it begins, and counts that on top."""

    def __iter__(self) -> Iterator[Any]:
        first, self.place = self.place, 2 * self.place
        for row in self.rows[first:]:
            self.place += 1
            yield row
        self.place = 0


DRAWING = {
    "an order": lambda: torch_data.DataLoader(Drawing(), batch_size=8),
    "what is read ahead": lambda: torch_data.DataLoader(Buffering(), batch_size=8),
    "what a resume counts": lambda: torch_data.DataLoader(CountingTwice(), batch_size=8),
    "in threads": lambda: of_nodes(range(SAMPLES), 2, draws=True),
    "of a loader that looks ahead": lambda: of_nodes(range(SAMPLES), 0, draws=True),
}


@pytest.mark.parametrize("name", DRAWING)
def test_what_a_state_leaves_out_is_named_before_the_first_step(name, tmp_path):
    run = colabkit.Run(tmp_path, model=nn.Linear(6, 2), progress=False)
    for _ in run.batches(DRAWING[name]()):
        break
    assert "gives other batches when it goes on from its own state" in str(run.verdict)
    assert "approximate" in str(run.verdict)


def own_generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


ROWS, HALF = range(SAMPLES), range(SAMPLES // 2)
SAMPLERS = {
    "the run's": lambda: torch_data.RandomSampler(ROWS),
    "its own": lambda: torch_data.RandomSampler(ROWS, generator=own_generator()),
    "drawn in pieces": lambda: torch_data.RandomSampler(
        ROWS, replacement=True, generator=own_generator()
    ),
    "two orders a pass": lambda: torch_data.RandomSampler(
        HALF, num_samples=SAMPLES, generator=own_generator()
    ),
}


@pytest.mark.parametrize(("workers", "stops"), [(0, (2, 6)), (2, (6,)), (0, (5, 9)), (2, (2, 5))])
@pytest.mark.parametrize("name", SAMPLERS)
def test_an_order_of_a_sampler_of_nodes_is_the_same_after_a_resume(name, workers, stops, tmp_path):
    """Six batches a pass: one is stopped right behind it."""
    alone = fit(tmp_path / "alone", of_nodes(SAMPLERS[name](), workers), epochs=2)
    for max_steps in (*stops, None):
        data = of_nodes(SAMPLERS[name](), workers)
        killed = fit(tmp_path / "killed", data, epochs=2, max_steps=max_steps)
    assert not alone.verdict.reasons
    assert killed.steps["loss"].tolist() == alone.steps["loss"].tolist()


class Unhurried(torch_data.Sampler[int]):
    """Takes its time to draw, and counts who draws of an order after the next was begun."""

    def __init__(self) -> None:
        self.newest, self.overlaps = object(), 0

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        self.newest = mine = object()
        for begin in range(0, SAMPLES, 4):
            time.sleep(0.02)
            self.overlaps += self.newest is not mine
            yield from range(begin, begin + 4)


def test_no_thread_of_a_pass_that_was_left_reads_in_the_next(tmp_path, monkeypatch):
    # Nodes wait so long, five times over, for a thread that is to end.
    monkeypatch.setattr("torchdata.nodes.map.QUEUE_TIMEOUT", 0.001)
    sampler = Unhurried()
    fit(tmp_path, of_nodes(sampler, 2), epochs=2, max_steps=7)
    assert sampler.overlaps == 0


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
