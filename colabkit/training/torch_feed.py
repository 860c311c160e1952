"""The sources of batches on the PyTorch side, each able to begin a pass at any batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils import data as torch_data

from colabkit.training.feed import Start
from colabkit.training.seeding import derive
from colabkit.training.torch_compare import batch_digest, same_batch
from colabkit.training.torch_fetch import KeyedStream, OwnGenerators, Ticket, TicketDataset
from colabkit.training.torch_random import reseed_generator, seed_everything

_DRAWS_ONCE = (
    torch_data.SequentialSampler,
    torch_data.RandomSampler,
    torch_data.SubsetRandomSampler,
    torch_data.WeightedRandomSampler,
)
_CHUNK_BYTES = 4 << 20


def _identity(value: Any) -> Any:
    return value


class ArrayFeed:
    """Arrays in memory: batches are gathered whole, in an order drawn per epoch.

    Args:
        tensors: Tensors of equal first dimension [N, ...].
        rebuild: Makes one batch of the list of gathered tensors.
        batch_size: Samples in a batch; the last one may be smaller.
        shuffle: Whether each pass has its own order.
    """

    def __init__(
        self,
        tensors: Sequence[torch.Tensor],
        rebuild: Callable[[list[torch.Tensor]], Any],
        *,
        batch_size: int,
        shuffle: bool,
    ) -> None:
        self._tensors = tensors
        self._rebuild = rebuild
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._samples = len(tensors[0])
        self.length: int | None = -(-self._samples // batch_size)
        sample_bytes = sum(t[:1].nbytes for t in tensors) or 1
        self._batches_per_gather = max(1, _CHUNK_BYTES // (sample_bytes * batch_size))

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields gathered batches; several are gathered in one call where they are small."""
        size, rebuild = self._batch_size, self._rebuild
        stride = size * self._batches_per_gather
        order = self._order(start.key)
        for first in range(start.skip * size, self._samples, stride):
            chunk = [self._gather(tensor, order, first, stride) for tensor in self._tensors]
            for batch in zip(*(tensor.split(size) for tensor in chunk), strict=True):
                yield rebuild(list(batch))

    def _order(self, key: int) -> torch.Tensor | None:
        if not self._shuffle:
            return None
        order = torch.randperm(self._samples, generator=torch.Generator().manual_seed(key))
        return order.to(self._tensors[0].device)

    @staticmethod
    def _gather(
        tensor: torch.Tensor, order: torch.Tensor | None, first: int, count: int
    ) -> torch.Tensor:
        if order is None:
            return tensor[first : first + count]
        return tensor.index_select(0, order[first : first + count])

    def state(self) -> object:
        """The order follows from the key: nothing to keep."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """Samples and batch size."""
        return {"samples": self._samples, "batch_size": self._batch_size}

    def reasons(self) -> tuple[str, ...]:
        """Nothing stands against exactness."""
        return ()

    def notices(self) -> tuple[str, ...]:
        """Nothing to say."""
        return ()


class MapFeed:
    """A DataLoader over a map-style dataset, rebuilt so that workers change nothing."""

    def __init__(self, loader: torch_data.DataLoader[Any], *, pin: bool) -> None:
        self._loader = loader
        self._collated = loader.batch_sampler is not None
        self._sampler: Any = loader.batch_sampler if self._collated else loader.sampler
        self._dataset = TicketDataset(
            loader.dataset, loader.collate_fn, whole_batches=self._collated
        )
        self._order_generators = OwnGenerators(self._sampler, loader.sampler)
        self._pin = pin
        self._tickets: Iterator[Ticket] = iter(())
        self._workers: torch_data.DataLoader[Any] | None = None
        self._repeats: bool | None = None
        self._order_repeats: bool | None = None
        self.length: int | None = _length_of(self._sampler)

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields batches from the index order replayed under the key."""
        if start.probe and self._order_repeats is None:
            self._order_repeats = self._same_order_twice(start)
        tickets = itertools.islice(self._order(start), start.skip, None)
        probing = start.probe and self._repeats is None
        if probing:
            tickets = _first_twice(tickets)
        fetched = self._fetch(tickets)
        if probing:
            yield from self._compare_first_two(fetched)
        yield from fetched

    def _fetch(self, tickets: Iterator[Ticket]) -> Iterator[Any]:
        if self._loader.num_workers == 0:
            batches = map(self._dataset.__getitem__, tickets)
            return map(_pinned, batches) if self._pin else batches
        self._tickets = tickets
        if self._workers is None or not self._loader.persistent_workers:
            self._workers = self._loader_with_workers()
        return iter(self._workers)

    def _loader_with_workers(self) -> torch_data.DataLoader[Any]:
        given = self._loader
        return torch_data.DataLoader(
            self._dataset,
            batch_size=None,
            sampler=_Handed(self),
            collate_fn=_identity,
            num_workers=given.num_workers,
            pin_memory=self._pin,
            timeout=given.timeout,
            worker_init_fn=_InitInWorker(given.worker_init_fn) if given.worker_init_fn else None,
            multiprocessing_context=given.multiprocessing_context,
            generator=torch.Generator().manual_seed(0),
            prefetch_factor=given.prefetch_factor,
            persistent_workers=given.persistent_workers,
        )

    def _order(self, start: Start) -> Iterator[Ticket]:
        for sampler in (self._sampler, self._loader.sampler):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(start.epoch)
        key = derive(start.key, "order")
        self._seed_order(key)
        every_draw = not _draws_once(self._sampler)
        indices = iter(self._sampler)
        for number in itertools.count():
            if every_draw:
                self._seed_order(derive(key, number))
            elif number == 0:
                seed_everything(key)
            found = list(itertools.islice(indices, 1))
            if not found:
                return
            yield Ticket(derive(start.key, number), found[0])

    def _seed_order(self, seed: int) -> None:
        seed_everything(seed)
        self._order_generators.reseed(seed)

    def _same_order_twice(self, start: Start) -> bool:
        heads = [[t.indices for t in itertools.islice(self._order(start), 2)] for _ in range(2)]
        return heads[0] == heads[1]

    def _compare_first_two(self, fetched: Iterator[Any]) -> Iterator[Any]:
        pair = list(itertools.islice(fetched, 2))
        if len(pair) == 2:
            self._repeats = same_batch(pair[0], pair[1])
            yield pair[1]

    def state(self) -> object:
        """The order and every batch follow from the key: nothing to keep."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """Samples and batch size, where the loader says them."""
        return {
            "samples": _length_of(self._loader.dataset),
            "batch_size": self._loader.batch_size,
            "batches": self.length,
        }

    def reasons(self) -> tuple[str, ...]:
        """What the two fetches of the first batch showed."""
        found = []
        if self._repeats is False:
            found.append(
                "the dataset gave another batch when asked twice under the same seed"
                " (it draws from a source that cannot be seeded, or counts its calls)"
            )
        if self._order_repeats is False:
            found.append("the sampler gave another order when asked twice under the same seed")
        if OwnGenerators(self._loader.dataset, self._sampler).unseedable():
            found.append("the data holds a random.SystemRandom, which cannot be seeded")
        return tuple(found)

    def notices(self) -> tuple[str, ...]:
        """Nothing to say."""
        return ()


class StreamFeed:
    """An iterable dataset, a loader with its own state, or any iterable of batches.

    A source with ``state_dict`` goes on from its state. Any other is read again from its
    beginning, and the batches already trained are thrown away.
    """

    def __init__(
        self,
        source: Any,
        *,
        loader: torch_data.DataLoader[Any] | None = None,
        pin: bool = False,
    ) -> None:
        self._source = source
        self._loader = loader
        self._pin = pin
        self._workers = loader.num_workers if loader is not None else 0
        has_state = hasattr(source, "state_dict") and hasattr(source, "load_state_dict")
        self._stateful: Any = source if has_state and not self._workers else None
        self._one_shot = not callable(source) and iter(source) is source if loader is None and not has_state else False
        self._passes = 0
        self._fresh_state = self._stateful.state_dict() if self._stateful is not None else None
        self._first_digest: str | None = None
        self._last: Any = None
        self._problems: dict[str, None] = {}
        self.length: int | None = None if callable(source) else _length_of(loader or source)

    @property
    def reads_once(self) -> bool:
        """Whether the source is an iterator, good for one pass only."""
        return self._one_shot

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields batches, from the source's own state or by reading again."""
        if hasattr(self._source, "set_epoch"):
            self._source.set_epoch(start.epoch)
        state = start.state if isinstance(start.state, Mapping) else {}
        stream = self._resumed(start, state) if start.skip else self._from_the_top(start, state)
        for batch in stream:
            self._last = batch
            yield _pinned(batch) if self._pin else batch

    def _from_the_top(self, start: Start, state: Mapping[str, Any]) -> Iterator[Any]:
        if "source" in state and self._passes == 0:
            self._stateful.load_state_dict(state["source"])
        self._passes += 1
        stream = self._open(start.key, 0)
        if start.probe and self._can_probe():
            first_of_a_pass = next(self._open(start.key, 0), None)
            stream = self._open(start.key, 0)
            first = next(stream, None)
            if first is None:
                return
            if not same_batch(first_of_a_pass, first):
                self._problems["the iterable gave another first batch when read again"] = None
            stream = itertools.chain((first,), stream)
        for number, batch in enumerate(stream):
            if number == 0:
                self._first_digest = batch_digest(batch)
            yield batch

    def _can_probe(self) -> bool:
        return self._stateful is None and not self._one_shot and not self._workers

    def _resumed(self, start: Start, state: Mapping[str, Any]) -> Iterator[Any]:
        self._passes += 1
        self._first_digest = state.get("first")
        if state.get("workers", self._workers) != self._workers:
            reason = f"the iterable dataset is split over {self._workers} workers, was {state['workers']}"
            self._problems[reason] = None
        if "source" in state and self._stateful is not None:
            self._stateful.load_state_dict(state["source"])
            yield from self._open(start.key, start.skip)
            return
        stream = self._open(start.key, 0)
        for number, batch in enumerate(itertools.islice(stream, start.skip)):
            seen = {0: state.get("first"), start.skip - 1: state.get("last")}.get(number)
            if seen is not None and seen != batch_digest(batch):
                self._problems["the iterable did not give the same batches again"] = None
        yield from stream

    def _open(self, key: int, first: int) -> Iterator[Any]:
        if self._loader is None or self._loader.dataset is not self._source:
            return self._keyed(key, first)
        given = self._loader
        stream = KeyedStream(
            self._source,
            given.collate_fn,
            batch_size=given.batch_size,
            drop_last=given.drop_last,
            key=key,
        )
        return iter(self._spread(stream)) if self._workers else stream.from_batch(first)

    def _spread(self, stream: KeyedStream) -> torch_data.DataLoader[Any]:
        given = self._loader
        assert given is not None  # noqa: S101  # for the type checker
        return torch_data.DataLoader(
            stream,
            batch_size=None,
            collate_fn=_identity,
            num_workers=given.num_workers,
            timeout=given.timeout,
            worker_init_fn=_InitInWorker(given.worker_init_fn) if given.worker_init_fn else None,
            multiprocessing_context=given.multiprocessing_context,
            generator=torch.Generator().manual_seed(0),
            prefetch_factor=given.prefetch_factor,
        )

    def _keyed(self, key: int, first: int) -> Iterator[Any]:
        generators = OwnGenerators(self._source)
        self._seed(generators, derive(key, "iter"))
        stream = iter(self._source() if callable(self._source) else self._source)
        for number in itertools.count(first):
            self._seed(generators, derive(key, number))
            found = list(itertools.islice(stream, 1))
            if not found:
                return
            yield found[0]

    @staticmethod
    def _seed(generators: OwnGenerators, seed: int) -> None:
        seed_everything(seed)
        generators.reseed(seed)

    def state(self) -> object:
        """The source's own state, or what tells at a resume whether it repeats itself."""
        state: dict[str, Any] = {"workers": self._workers}
        if self._stateful is not None:
            source = self._stateful.state_dict()
            if source != self._fresh_state:
                state["source"] = source
        elif self._last is not None:
            state |= {"first": self._first_digest, "last": batch_digest(self._last)}
        return state

    def describe(self) -> Mapping[str, Any]:
        """Length and batch size, where the source says them."""
        return {
            "batches": self.length,
            "batch_size": getattr(self._loader, "batch_size", None),
        }

    def reasons(self) -> tuple[str, ...]:
        """What reading again has shown so far."""
        return tuple(self._problems)

    def notices(self) -> tuple[str, ...]:
        """What a resume costs."""
        if self._stateful is not None:
            return ()
        return (
            "this iterable has no state_dict: a resume reads it again from its beginning"
            " and checks that it gives the same batches",
        )


class _Handed(torch_data.Sampler[Ticket]):
    """Hands the tickets of the pass under way to the DataLoader."""

    def __init__(self, feed: MapFeed) -> None:
        self._feed = feed

    def __iter__(self) -> Iterator[Ticket]:
        return self._feed._tickets  # noqa: SLF001  # two halves of one object


class _InitInWorker:
    """Calls the user's worker_init_fn with the user's own dataset in sight."""

    def __init__(self, user_function: Callable[[int], None]) -> None:
        self._user_function = user_function

    def __call__(self, worker_id: int) -> None:
        info: Any = torch_data.get_worker_info()
        ours = info.dataset
        info.dataset = ours.dataset
        try:
            self._user_function(worker_id)
        finally:
            info.dataset = ours


def _draws_once(sampler: Any) -> bool:
    inner = sampler.sampler if type(sampler) is torch_data.BatchSampler else sampler
    return type(inner) in _DRAWS_ONCE


def _first_twice(tickets: Iterator[Ticket]) -> Iterator[Ticket]:
    for first in itertools.islice(tickets, 1):
        yield first
        yield first
    yield from tickets


def _length_of(value: Any) -> int | None:
    try:
        return len(value)
    except (TypeError, NotImplementedError):
        return None


def _pinned(batch: Any) -> Any:
    return torch_data._utils.pin_memory.pin_memory(batch)  # noqa: SLF001  # not public elsewhere


__all__ = ["ArrayFeed", "MapFeed", "StreamFeed", "reseed_generator"]
