"""Every source of batches can be entered at any batch, and gives it in memory of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data as torch_data

from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.torch.sources import feed_of

SHAPES = [(7, 33), (9, 129), (3, 101), (8, 16), (1, 5), (40, 3)]
SAMPLES = 31


def arrays(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(width)
    x = torch.randn(SAMPLES, width, generator=generator)
    return x, torch.arange(SAMPLES)


class Views(torch_data.Dataset):
    """Gives views of what it keeps, whole batches at a time or one sample."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index], self.y[index]


class Unmeasured(torch_data.Sampler[Any]):
    """Makes as many batches as come out, as those by the size of graphs or texts do."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        raise ValueError(self.size)

    def __iter__(self) -> Iterator[list[int]]:
        return iter([list(part) for part in torch.arange(SAMPLES).split(self.size)])


class Stream(torch_data.IterableDataset):
    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Iterator[Any]:
        return zip(self.x, self.y, strict=True)


def to_numpy(items: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([x.numpy() for x, _ in items]), np.array([int(y) for _, y in items])


def from_numpy(items: list[Any]) -> dict[str, torch.Tensor]:
    x, y = to_numpy(items)
    return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}


def slices(x: torch.Tensor, y: torch.Tensor, size: int) -> list[Any]:
    return [(x[at : at + size], y[at : at + size].numpy()) for at in range(0, SAMPLES, size)]


def loader(x: torch.Tensor, y: torch.Tensor, size: int, **options: Any) -> torch_data.DataLoader:
    return torch_data.DataLoader(Views(x, y), size, shuffle=True, **options)


Make = Callable[[torch.Tensor, torch.Tensor, int], Any]
SOURCES: dict[str, Make] = {
    "arrays": lambda x, y, size: (x, y),
    "NumPy arrays in a dict": lambda x, y, size: {"a": x.numpy(), "b": {"c": y.numpy()}},
    "NumPy arrays from behind": lambda x, y, size: (x.numpy()[::-1, ::-1], y.numpy()[::-1]),
    "a Dataset": lambda x, y, size: Views(x, y),
    "a TensorDataset": lambda x, y, size: torch_data.DataLoader(
        torch_data.TensorDataset(x, y), size, shuffle=True
    ),
    "a collate function of NumPy": lambda x, y, size: loader(x, y, size, collate_fn=to_numpy),
    "a collate function from NumPy": lambda x, y, size: loader(x, y, size, collate_fn=from_numpy),
    "a sampler that knows no length": lambda x, y, size: torch_data.DataLoader(
        Views(x, y), batch_sampler=Unmeasured(size)
    ),
    "samples one by one": lambda x, y, size: torch_data.DataLoader(Views(x, y), batch_size=None),
    "slices of a sampler": lambda x, y, size: torch_data.DataLoader(
        Views(x, y), batch_size=None, sampler=[slice(i, i + size) for i in range(0, SAMPLES, size)]
    ),
    "an iterable dataset": lambda x, y, size: torch_data.DataLoader(Stream(x, y), size),
    "an iterable dataset, one by one": lambda x, y, size: torch_data.DataLoader(
        Stream(x, y), batch_size=None
    ),
    "a list of batches": slices,
    "a function that gives a generator": lambda x, y, size: lambda: iter(slices(x, y, size)),
}
WITH_WORKERS: dict[str, Make] = {
    "two workers": lambda x, y, size: loader(x, y, size, num_workers=2),
    "two workers from NumPy": lambda x, y, size: loader(
        x, y, size, num_workers=2, collate_fn=from_numpy
    ),
    "two workers to NumPy": lambda x, y, size: loader(
        x, y, size, num_workers=2, collate_fn=to_numpy
    ),
    "a stream read by two workers": lambda x, y, size: torch_data.DataLoader(
        Stream(x, y), size, num_workers=2
    ),
}
EVERY = [(name, make, shape) for name, make in SOURCES.items() for shape in SHAPES]
EVERY += [(name, make, SHAPES[0]) for name, make in WITH_WORKERS.items()]


def leaves(batch: Any) -> list[Any]:
    if isinstance(batch, dict):
        return [leaf for value in batch.values() for leaf in leaves(value)]
    return (
        [leaf for value in batch for leaf in leaves(value)] if type(batch) in SEQUENCES else [batch]
    )


SEQUENCES = (tuple, list)


def address(leaf: torch.Tensor | np.ndarray) -> int:
    return leaf.data_ptr() if isinstance(leaf, torch.Tensor) else leaf.ctypes.data


def lies_in(leaf: torch.Tensor | np.ndarray, whole: torch.Tensor) -> bool:
    return whole.data_ptr() <= address(leaf) < whole.data_ptr() + whole.nbytes


def read(feed: Feed, skip: int = 0) -> list[list[Any]]:
    return [leaves(batch) for batch in feed.batches(Start(key=5, epoch=0, skip=skip))]


@pytest.mark.parametrize("shuffle", [True, False], ids=["shuffled", "in order"])
@pytest.mark.parametrize(
    ("name", "make", "shape"), EVERY, ids=[f"{name} {shape}" for name, _, shape in EVERY]
)
def test_a_pass_entered_anywhere_gives_the_same_bits_at_the_same_alignment(
    name, make, shape, shuffle
):
    size, width = shape
    x, y = arrays(width)

    def feed() -> Feed:
        data, cpu = make(x, y, size), torch.device("cpu")
        return feed_of(data, batch_size=size, shuffle=shuffle, device=cpu)

    whole = read(feed())
    for skip in sorted({0, 1, 2, len(whole) // 2, len(whole) - 1} & set(range(len(whole)))):
        entered = read(feed(), skip)
        assert len(entered) == len(whole) - skip
        for ours, theirs in zip(entered, whole[skip:], strict=True):
            for leaf, other in zip(ours, theirs, strict=True):
                assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()
                assert address(leaf) % 64 == address(other) % 64 == 0
                assert not any(lies_in(leaf, kept) for kept in (x, y))


def test_what_a_step_does_to_a_batch_stays_in_the_batch():
    x, y = arrays(4)
    kept = x.clone()
    for make in SOURCES.values():
        feed = feed_of(make(x, y, 8), batch_size=8, shuffle=False, device=torch.device("cpu"))
        seen = [leaves(b)[0] for b in feed.batches(Start(0, 0))]
        for leaf in seen:
            leaf *= 2
        assert torch.equal(x, kept)


def test_unsigned_arrays_of_tokens_are_read():
    tokens = np.arange(20, dtype=np.uint16).reshape(10, 2)
    feed = feed_of(tokens, batch_size=4, shuffle=False, device=torch.device("cpu"))
    batches = list(feed.batches(Start(key=0, epoch=0)))
    assert {batch.dtype for batch in batches} == {torch.uint16}
    assert np.array_equal(np.concatenate([batch.numpy() for batch in batches]), tokens)


class Rewinding(torch_data.IterableDataset):
    """Has its place as a state, and is back at its start as soon as the last item is asked for."""

    def __init__(self) -> None:
        self.place, self.passes = 0, 0

    def __iter__(self) -> Any:
        while self.place < SAMPLES:
            self.place += 1
            yield torch.tensor([self.place, self.passes])
        self.place, self.passes = 0, self.passes + 1

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place, "passes": self.passes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place, self.passes = state["place"], state["passes"]


def rewinding(size: int) -> Feed:
    made = torch_data.DataLoader(Rewinding(), size)
    return feed_of(made, batch_size=size, shuffle=False, device=torch.device("cpu"))


@pytest.mark.parametrize("size", [8, SAMPLES, 1])
def test_a_source_that_rewinds_itself_is_not_read_again_after_its_last_batch(size):
    """However often it is gone on from, and wherever, a short last batch included."""
    whole = [batch.tolist() for batch in rewinding(size).batches(Start(key=5, epoch=0))]
    for stop in range(1, len(whole) + 1):
        state, read = None, 0
        for end in sorted({stop - 1, stop, len(whole)} - {0}):
            feed = rewinding(size)
            batches = iter(feed.batches(Start(key=5, epoch=0, skip=read, state=state)))
            got = [batch.tolist() for batch in itertools.islice(batches, end - read)]
            assert got == whole[read:end]
            state, read = feed.state(), end
        feed = rewinding(size)
        assert not list(feed.batches(Start(key=5, epoch=0, skip=read, state=state)))
        beyond = [batch.tolist() for batch in feed.batches(Start(key=6, epoch=1))]
        assert beyond == [[[place, 1] for place, _ in batch] for batch in whole]
