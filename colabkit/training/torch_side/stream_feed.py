"""Iterables as a source of batches: from their own state, or read again from the beginning."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils import data as torch_data

from colabkit.training.feed import Start
from colabkit.training.seeding import derive
from colabkit.training.torch_side.compare import batch_digest, same_batch
from colabkit.training.torch_side.fetch import KeyedStream, OwnGenerators
from colabkit.training.torch_side.loading import (
    InitInWorker,
    identity,
    length_of,
    loader_within,
    pinned,
)
from colabkit.training.torch_side.memory import aligned, in_own_memory, share_memory
from colabkit.training.torch_side.randomness import seed_everything


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
        # PyTorch's own collation stacks into new tensors; any other may hand out what it keeps.
        self._stacks = (
            loader is not None
            and loader.dataset is source
            and loader.batch_size is not None
            and loader.collate_fn is torch_data.default_collate
        )
        self._hand_out: Callable[[Any], Any] = in_own_memory
        self._workers = loader.num_workers if loader is not None else 0
        inner = loader_within(source)
        self._readers = max(1, self._workers, inner.num_workers if inner is not None else 0)
        if self._workers:
            # What comes from another process was copied on its way.
            self._hand_out = aligned
        has_state = hasattr(source, "state_dict") and hasattr(source, "load_state_dict")
        is_whole = has_state and not self._workers and not _forgets_its_buffer(source)
        self._stateful: Any = source if is_whole else None
        self._one_shot = not has_state and isinstance(source, Iterator)
        self._stream: KeyedStream | None = None
        self._passes = 0
        self._probed = False
        self._fresh = ""
        self._problems: dict[str, None] = {}
        self.length: int | None = (
            None if callable(source) else length_of(source if loader is None else loader)
        )

    @property
    def goes_back(self) -> bool:
        """Whether a pass can be entered before the place that the source's own state names."""
        return self._stateful is None

    @property
    def reads_once(self) -> bool:
        """Whether the source is an iterator, good for one pass only."""
        return self._one_shot

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields batches, from the source's own state or by reading again."""
        told: Any
        for told in (self._source, getattr(self._source, "sampler", None)):
            if hasattr(told, "set_epoch"):
                told.set_epoch(start.epoch)
        state = start.state if isinstance(start.state, Mapping) else {}
        stream = self._resumed(start, state) if start.skip else self._from_the_top(start, state)
        for batch in stream:
            own = batch if self._stacks else self._hand_out(batch)
            yield pinned(own) if self._pin else own

    def _from_the_top(self, start: Start, state: Mapping[str, Any]) -> Iterator[Any]:
        if "source" in state and self._passes == 0:
            self._stateful.load_state_dict(state["source"])
        elif self._stateful is not None and self._passes == 0:
            # A digest, for the state may be live, and hold tensors. Not before a state is loaded:
            # some sources begin to read when they are asked, and go on from there.
            self._fresh = batch_digest(self._stateful.state_dict())
        self._passes += 1
        if self._can_probe() and not self._probed:
            self._probed = True
            # Workers take turns: so many batches are the first of each.
            heads = [
                list(itertools.islice(self._open(start.key, 0), self._readers)) for _ in range(2)
            ]
            if not share_memory(*heads):
                self._hand_out = aligned
            if not same_batch(heads[0], heads[1]):
                self._problems["the iterable gave another first batch when read again"] = None
        yield from self._open(start.key, 0)

    def _can_probe(self) -> bool:
        # A worker has a copy of what can be read once only.
        return self._stateful is None and not (self._one_shot and not self._workers)

    def _resumed(self, start: Start, state: Mapping[str, Any]) -> Iterator[Any]:
        self._passes += 1
        if state.get("workers", self._workers) != self._workers:
            then = state["workers"]
            reason = f"the iterable dataset is read by {self._workers} workers, was by {then}"
            self._problems[reason] = None
        if "source" in state and self._stateful is not None:
            self._stateful.load_state_dict(state["source"])
        if state.get("has_ended"):
            return
        if "source" in state and self._stateful is not None:
            yield from self._open(start.key, start.skip)
            return
        batches = self._open(start.key, 0)
        for number, _ in enumerate(itertools.islice(batches, start.skip), 1):
            start.passed(number)
        yield from batches

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
        if self._workers:
            return iter(self._spread(stream))
        self._stream = stream
        return stream.from_batch(first)

    def _spread(self, stream: KeyedStream) -> torch_data.DataLoader[Any]:
        given = self._loader
        assert given is not None  # noqa: S101  # for the type checker
        return torch_data.DataLoader(
            stream,
            batch_size=None,
            collate_fn=identity,
            num_workers=given.num_workers,
            timeout=given.timeout,
            worker_init_fn=InitInWorker(given.worker_init_fn),
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
            if batch_digest(source) != self._fresh:
                state["source"] = source
            if self._stream is not None and self._stream.has_ended:
                state["has_ended"] = True
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
        if type(self._stateful).__module__.startswith("torchdata.nodes"):
            return (
                "where its nodes draw nothing at random in their threads, which no seed reaches",
            )
        if self._stateful is not None:
            return ()
        notice = (
            "this iterable is read again from its beginning by a resume, which checks that it"
            " gives the same batches"
        )
        return (notice,)


def _forgets_its_buffer(source: Any) -> bool:
    """Whether a source's state leaves out the samples that it has read to shuffle them.

    Such a source is read again instead: its order follows from its seed.

    Source:
        datasets.IterableDataset.state_dict, whose docstring says so of ``shuffle``.
    """
    stages = [getattr(source, "_ex_iterable", None)]
    for stage in stages:
        if type(stage).__name__.startswith("BufferShuffled"):
            return True
        inner = vars(stage) if hasattr(stage, "__dict__") else {}
        stages += [inner[name] for name in ("ex_iterable", "original_ex_iterable") if name in inner]
        stages += inner.get("ex_iterables", ())
    return False
