"""Fetching batches of a map-style or iterable dataset so that each depends on its place alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils import data as torch_data

from colabkit.errors import ArgumentError
from colabkit.frameworks.own_generators import TRIES_MAX, OwnGenerators
from colabkit.frameworks.seeding import derive
from colabkit.frameworks.torch.compare import batch_digest
from colabkit.frameworks.torch.fetch_counts import FetchCounts
from colabkit.frameworks.torch.randomness import (
    global_states,
    own_generator_state,
    reseed_generator,
    seed_everything,
)


class BatchRequest(NamedTuple):
    """One batch to fetch.

    Attributes:
        seed: Its seed.
        indices: Its indices; one index where nothing is collated.
        is_trial: Whether it is fetched to see how the dataset behaves, and comes as a ``Trial``.
    """

    seed: int
    indices: Any
    is_trial: bool = False


class Trial(NamedTuple):
    """A batch, and what fetching it was seen to do.

    Attributes:
        batch: The batch.
        drew: Whether random numbers were drawn for it.
        counts: The numbers that the dataset and its code have since.
    """

    batch: Any
    drew: bool
    counts: Mapping[str, Any]


def own_generators(*roots: object) -> OwnGenerators:
    """Returns those that a user keeps in a dataset or its transforms."""
    # The search is a good part of what a call takes before its first step.
    searched = [each for each in roots if not _holds_tensors_alone(each)]
    return OwnGenerators(*searched, kinds=(torch.Generator,), put=reseed_generator)


def _holds_tensors_alone(root: Any) -> bool:
    """Whether it is PyTorch's own, over tensors, and was given no generator."""
    kind = type(root)
    if kind is torch_data.TensorDataset:
        return set(vars(root)) == {"tensors"}
    if kind in {torch_data.SequentialSampler, torch_data.RandomSampler}:
        is_drawn = getattr(root, "generator", None) is not None
        return not is_drawn and _holds_tensors_alone(root.data_source)
    if kind is torch_data.BatchSampler:
        return _holds_tensors_alone(root.sampler)
    return root is None or root is torch_data.default_collate


class RequestDataset(torch_data.Dataset[Any]):
    """A map-style dataset asked by whole batches, every random draw keyed to the batch."""

    def __init__(
        self, dataset: Any, collate: Callable[[Any], Any] | None, *, whole_batches: bool
    ) -> None:
        self.dataset = dataset
        self._collate = collate
        self._whole_batches = whole_batches
        self._generators = own_generators(dataset, collate)
        plain = collate is None or collate is torch_data.default_collate
        self._tensors: Any = (
            dataset.tensors
            if whole_batches and plain and type(dataset) is torch_data.TensorDataset
            else None
        )

    @property
    def is_plain(self) -> bool:
        """Whether all it has are tensors, of which batches are rows."""
        return self._tensors is not None

    def __getitem__(self, request: BatchRequest) -> Any:
        """Fetches and collates one batch."""
        if self.is_plain:
            indices = _as_tensor(request.indices)
            batch = [tensor.index_select(0, indices) for tensor in self._tensors]
            return Trial(batch, drew=False, counts={}) if request.is_trial else batch
        before, batch = self._drawn(request)
        if not request.is_trial:
            return batch
        return Trial(batch, batch_digest(self._states()) != before, self.counts().now())

    def counts(self) -> FetchCounts:
        """Returns what looks at the numbers that its fetches change."""
        return FetchCounts(self.dataset, self._collate)

    def _drawn(self, request: BatchRequest) -> tuple[object, Any]:
        """Returns a batch, and of a trial where generators stood before it."""
        for _ in range(TRIES_MAX):
            seed_everything(request.seed)
            self._generators.reseed(request.seed)
            before = batch_digest(self._states()) if request.is_trial else None
            batch = _collated(self._items(request.indices), self._collate)
            if not self._generators.have_come():
                break
        return before, batch

    def _states(self) -> list[object]:
        return [global_states(), *map(own_generator_state, self._generators.found)]

    def _items(self, indices: Any) -> Any:
        if not self._whole_batches:
            return self.dataset[indices]
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(indices)
        return [self.dataset[index] for index in indices]


class KeyedStream(torch_data.IterableDataset[Any]):
    """An iterable dataset batched where it is read, every random draw keyed to the batch."""

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[Any], Any] | None,
        *,
        batch_size: int | None,
        drop_last: bool,
        key: int,
    ) -> None:
        self.dataset = dataset
        self._collate = collate
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._key = key
        self._generators = own_generators(dataset, collate)

    def __iter__(self) -> Iterator[Any]:
        return self.from_batch(0)

    def from_batch(self, first: int) -> Iterator[Any]:
        """Yields batches, numbering their seeds from ``first``."""
        worker = torch_data.get_worker_info()
        key = derive(self._key, worker.id if worker else 0)
        self._seed(derive(key, "iter"))
        items = iter(self.dataset)
        for number in itertools.count(first):
            self._seed(derive(key, number))
            batch = self._batch(items)
            if batch is None:
                return
            yield batch[0]

    def _seed(self, seed: int) -> None:
        seed_everything(seed)
        self._generators.reseed(seed)

    def _batch(self, items: Iterator[Any]) -> tuple[Any] | None:
        if self._batch_size is None:
            found = list(itertools.islice(items, 1))
            return (_collated(found[0], self._collate),) if found else None
        found = list(itertools.islice(items, self._batch_size))
        if not found or (self._drop_last and len(found) < self._batch_size):
            return None
        return (_collated(found, self._collate),)


class Ahead:
    """An iterator that can be asked whether it has ended, for which it fetches one item more."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._fetched: list[Any] = []
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._fetched:
            return self._fetched.pop()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return next(self._items)

    @property
    def holds_one(self) -> bool:
        """Whether an item was fetched that nobody has been given yet."""
        return bool(self._fetched)

    def has_ended(self) -> bool:
        """Whether no item is left; what fails is raised where that item is due."""
        if not self._fetched and self._error is None:
            try:
                self._fetched.append(next(self._items))
            except StopIteration:
                return True
            except Exception as error:  # noqa: BLE001  # raised later
                self._error = error
        return False


def _as_tensor(indices: Any) -> torch.Tensor:
    """Returns indices as a tensor; a list of numbers by way of NumPy, which takes it up faster."""
    if type(indices) is list and indices and type(indices[0]) is int:
        indices = np.array(indices)
    return torch.as_tensor(indices)


def _collated(items: Any, collate: Callable[[Any], Any] | None) -> Any:
    if collate is None:
        return items
    try:
        return collate(items)
    except RuntimeError as error:
        if collate is torch_data.default_collate and "equal size" in str(error):
            raise _uneven_error(items) from error
        raise


def _uneven_error(samples: Any) -> ArgumentError:
    """Returns the error for samples of several lengths, which do not stack."""
    named = samples[0] if isinstance(samples[0], Mapping) else {}
    lengths = {name: {_length_of(sample[name]) for sample in samples} for name in named}
    uneven = [
        f"{name} of {min(each)} to {max(each)}" for name, each in lengths.items() if len(each) > 1
    ]
    what = f": {', '.join(uneven[:2])}" if uneven else ""
    hint = (
        "Pad them where batches are made: DataLoader(data, batch_size=8, shuffle=True, collate_fn="
        "transformers.DataCollatorWithPadding(tokenizer)); or to one length beforehand."
    )
    message = f"The samples of a batch have several lengths{what}."
    return ArgumentError(message, argument="data", hint=hint)


def _length_of(value: Any) -> int:
    is_scalar = getattr(value, "ndim", 1) == 0 or not hasattr(value, "__len__")
    return 1 if is_scalar else len(value)
