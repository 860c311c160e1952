"""Turns whatever the user calls data into a source of batches of NumPy arrays."""

from __future__ import annotations

import itertools
import operator
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from colabkit.errors import ArgumentError
from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.own_generators import (
    MADE_LATE,
    TOO_MANY,
    TRIES_MAX,
    OwnGenerators,
    makes_some_late,
)
from colabkit.frameworks.plain.records import same_batch
from colabkit.frameworks.seeding import derive


def feed_of(data: Any, *, batch_size: int, shuffle: bool) -> Feed:
    """Returns the feed for arrays, a Dataset, a DataLoader, or any iterable of batches.

    Raises:
        ArgumentError: When the data is none of these, or empty.
    """
    if _is_of_torch(data):
        feed: Feed = _of_torch(data, batch_size=batch_size, shuffle=shuffle)
    elif _is_arrays(data):
        feed = ArrayFeed(data, batch_size=batch_size, shuffle=shuffle)
    elif _is_map_style(data):
        feed = DatasetFeed(data, batch_size=batch_size, shuffle=shuffle)
    elif not isinstance(data, str | Mapping) and (callable(data) or isinstance(data, Iterable)):
        feed = IterableFeed(data)
    else:
        message = f"data is a {type(data).__name__}, from which no batches can be read."
        hint = "Pass (x, y) arrays, a Dataset, a DataLoader, or an iterable of batches."
        raise ArgumentError(message, argument="data", hint=hint)
    if feed.length == 0:
        message = "data holds no batches."
        raise ArgumentError(message, argument="data", hint="Check what it was read from.")
    return feed


def _is_of_torch(data: object) -> bool:
    known = sys.modules.get("torch.utils.data")
    return known is not None and isinstance(data, known.DataLoader | known.Dataset)


def _of_torch(data: Any, *, batch_size: int, shuffle: bool) -> Feed:
    import torch  # a DataLoader is there, so PyTorch is

    from colabkit.frameworks.torch import feed_of as torch_feed_of

    cpu = torch.device("cpu")
    return _AsArrays(torch_feed_of(data, batch_size=batch_size, shuffle=shuffle, device=cpu))


class _AsArrays:
    """A feed of PyTorch's whose tensors are handed out as arrays."""

    def __init__(self, inner: Feed) -> None:
        self._inner = inner

    def batches(self, start: Start) -> Iterator[Any]:
        return map(_arrays, self._inner.batches(start))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _arrays(value: Any) -> Any:
    """Returns a batch with arrays in the place of tensors."""
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if isinstance(value, Mapping):
        return {key: _arrays(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return tuple.__new__(type(value), map(_arrays, value))
    if isinstance(value, list | tuple):
        return type(value)(map(_arrays, value))
    return value


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") and hasattr(value, "shape") and hasattr(value, "dtype")


def _is_arrays(data: object) -> bool:
    if isinstance(data, Mapping):
        return bool(data) and all(map(_is_arrays, data.values()))
    if isinstance(data, tuple):
        return bool(data) and all(map(_is_arrays, data))
    return _is_array(data)


def _is_map_style(data: object) -> bool:
    is_sequence_of_batches = isinstance(data, Sequence | Mapping)
    return hasattr(data, "__getitem__") and hasattr(data, "__len__") and not is_sequence_of_batches


def _mapped(change: Callable[[Any], Any], data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _mapped(change, value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return tuple.__new__(type(data), (_mapped(change, value) for value in data))
    if isinstance(data, tuple):
        return tuple(_mapped(change, value) for value in data)
    return change(data)


def _in_order(samples: int, key: int, *, shuffle: bool) -> npt.NDArray[np.int64]:
    if shuffle:
        return np.random.default_rng(key).permutation(samples)
    return np.arange(samples)


class _Exact:
    """What is alike in sources whose order follows from the key of a pass."""

    _samples: int
    _batch_size: int

    def state(self) -> object:
        """The order follows from the key: nothing to keep."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """Samples and batch size."""
        return {"samples": self._samples, "batch_size": self._batch_size}

    def reasons(self) -> tuple[str, ...]:
        return ()

    def notices(self) -> tuple[str, ...]:
        return ()


class ArrayFeed(_Exact):
    """Arrays of equal first dimension [N, ...], in an order drawn for each pass.

    Args:
        data: An array, or tuples and dicts of them.
        batch_size: Samples in a batch; the last one may be smaller.
        shuffle: Whether each pass has its own order.
    """

    def __init__(self, data: Any, *, batch_size: int, shuffle: bool) -> None:
        lengths: set[int] = set()
        self._data = _mapped(np.asarray, data)
        _mapped(lambda array: lengths.add(len(array) if array.ndim else -1), self._data)
        if len(lengths) > 1 or min(lengths) < 0:
            message = f"The arrays in data have different lengths: {sorted(lengths)}."
            hint = "The first dimension of each must count the samples."
            raise ArgumentError(message, argument="data", hint=hint)
        self._samples, self._batch_size, self._shuffle = lengths.pop(), batch_size, shuffle
        self.length: int | None = -(-self._samples // batch_size)

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields batches; none shares memory with the arrays or with another."""
        order, size = _in_order(self._samples, start.key, shuffle=self._shuffle), self._batch_size
        for at in range(start.skip * size, self._samples, size):
            chosen = order[at : at + size]
            yield _mapped(operator.itemgetter(chosen), self._data)


class _Draws:
    """The random streams that making a batch may draw from, put where a seed names."""

    def __init__(self, source: Any) -> None:
        self._own = OwnGenerators(source)
        self.have_come = self._own.have_come

    def seed(self, seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # users draw from the global stream
        self._own.reseed(seed)

    def reasons(self) -> tuple[str, ...]:
        if self._own.unseedable():
            return ("the data draws from random.SystemRandom, which nothing can repeat",)
        return (TOO_MANY,) if self._own.leave_some() else ()


class DatasetFeed(_Exact):
    """Samples by index, stacked into batches; what they draw at random is keyed to the batch."""

    def __init__(self, data: Any, *, batch_size: int, shuffle: bool) -> None:
        self._data, self._draws = data, _Draws(data)
        self._samples, self._batch_size, self._shuffle = len(data), batch_size, shuffle
        self.length: int | None = -(-self._samples // batch_size)

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields stacked samples."""
        order, size = _in_order(self._samples, start.key, shuffle=self._shuffle), self._batch_size
        for number in range(start.skip, self.length or 0):
            chosen = order[number * size : (number + 1) * size]
            yield self._fetch(chosen, derive(start.key, "fetch", number))

    def _fetch(self, chosen: np.ndarray[Any, Any], seed: int) -> Any:
        for _ in range(TRIES_MAX):
            self._draws.seed(seed)
            batch = _stacked([self._data[int(index)] for index in chosen])
            if not self._draws.have_come():
                break
        return batch

    def reasons(self) -> tuple[str, ...]:
        return self._draws.reasons()


def _stacked(samples: Sequence[Any]) -> Any:
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: _stacked([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple | list):
        return tuple(map(_stacked, zip(*samples, strict=True)))
    return np.stack([np.asarray(sample) for sample in samples])


class IterableFeed:
    """Any iterable of batches, or a function that returns one: read again up to a place."""

    def __init__(self, source: Any) -> None:
        self._source, self._draws = source, _Draws(source)
        self._makes = callable(source) and not isinstance(source, Iterable)
        self.reads_once = isinstance(source, Iterator)
        self._repeats: bool | None = None
        self.length: int | None = len(source) if hasattr(source, "__len__") else None

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches from ``start.skip`` on, after reading those before again."""
        if self._repeats is None and not self.reads_once:
            one, other = (list(itertools.islice(self._keyed(start.key), 1)) for _ in range(2))
            self._repeats = same_batch(one, other)
        stream = self._keyed(start.key)
        for number, _ in enumerate(itertools.islice(stream, start.skip), 1):
            start.passed(number)
        yield from stream

    def _keyed(self, key: int) -> Iterator[Any]:
        self._draws.seed(derive(key, "iter"))
        stream = iter(self._source() if self._makes else self._source)
        for number in itertools.count():
            self._draws.seed(derive(key, number))
            found = list(itertools.islice(stream, 1))
            if not found:
                return
            yield found[0]

    def state(self) -> object:
        """The count of batches says it all."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """The length, where the source says it."""
        return {"batches": self.length}

    def reasons(self) -> tuple[str, ...]:
        """What reading again has shown."""
        if self._repeats is False:
            return ("the iterable gave another first batch when read again",)
        late = (MADE_LATE,) if makes_some_late(self._source) else ()
        return (*self._draws.reasons(), *late)

    def notices(self) -> tuple[str, ...]:
        """What a resume costs."""
        notice = (
            "this iterable is read again from its beginning by a resume, which checks that it"
            " gives the same batches"
        )
        return (notice,)
