"""A keras PyDataset as a source of batches that can begin anywhere, with any workers."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from colabkit.errors import ArgumentError
from colabkit.training.feed import Start
from colabkit.training.keras_side.compare import same_batch
from colabkit.training.keras_side.places import Place, Route
from colabkit.training.keras_side.randomness import KeyedDraws
from colabkit.training.seeding import derive

_in_worker: dict[str, Any] = {}


class DatasetFeed:
    """Batches of a PyDataset, every random draw of theirs keyed to the batch.

    Args:
        dataset: The user's PyDataset.
        shuffle: Whether the batches come in another order in each pass.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch, or None for a pass.
    """

    def __init__(
        self,
        dataset: keras.utils.PyDataset,
        *,
        shuffle: bool,
        seed: int,
        steps_per_epoch: int | None = None,
    ) -> None:
        batches = dataset.num_batches
        if batches is None and steps_per_epoch is None:
            message = "data is a PyDataset without an end."
            hint = "Pass steps_per_epoch, or give it a __len__."
            raise ArgumentError(message, argument="steps_per_epoch", hint=hint)
        self._dataset = dataset
        self._shuffle = shuffle and batches is not None
        self._seed = seed
        self._route = Route(batches=batches, steps_per_epoch=steps_per_epoch)
        self._draws = KeyedDraws(dataset)
        self._turns_begun = 0
        self._repeats: bool | None = None
        self.length = self._route.length

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of an epoch from ``start.skip`` on."""
        places = self._route.places(start.epoch, start.skip)
        for turn, of_turn in itertools.groupby(places, key=lambda place: place.turn):
            self._begin_turn(turn)
            yield from self._fetched(list(of_turn))

    def _begin_turn(self, turn: int) -> None:
        """Calls the dataset's own hooks as often as Keras would have, each under its key."""
        while self._turns_begun <= turn:
            number = self._turns_begun
            with self._draws.at(derive(self._seed, "turn", number)):
                # Keras, too, begins with an on_epoch_end.
                self._dataset.on_epoch_end()
                self._dataset.on_epoch_begin()
            self._turns_begun = number + 1

    def _order(self, turn: int) -> Any:
        count = self._route.batches
        if not self._shuffle or count is None:
            return None
        return np.random.default_rng(derive(self._seed, "order", turn)).permutation(count)

    def _fetched(self, places: Sequence[Place]) -> Iterator[Any]:
        order, turn = None, -1
        tickets = []
        for place in places:
            if place.turn != turn:
                turn, order = place.turn, self._order(place.turn)
            index = place.batch if order is None else int(order[place.batch])
            tickets.append((self._key(place), index))
        if self._repeats is None and tickets:
            self._repeats = same_batch(self._fetch(*tickets[0]), self._fetch(*tickets[0]))
        workers = self._dataset.workers
        if workers <= 1:
            yield from itertools.starmap(self._fetch, tickets)
            return
        yield from self._fetched_by_workers(tickets, workers)

    def _key(self, place: Place) -> int:
        return derive(self._seed, "batch", place.turn, place.batch)

    def _fetch(self, seed: int, index: int) -> Any:
        with self._draws.at(seed):
            return self._dataset[index]

    def _fetched_by_workers(self, tickets: list[tuple[int, int]], workers: int) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            pool: concurrent.futures.Executor
            if self._dataset.use_multiprocessing:
                pool = concurrent.futures.ProcessPoolExecutor(
                    workers,
                    mp_context=multiprocessing.get_context(),
                    initializer=_begin_worker,
                    initargs=(self._dataset,),
                )
                fetch: Any = _fetch_in_worker
            else:
                pool = concurrent.futures.ThreadPoolExecutor(workers, "colabkit-data")
                fetch = self._fetch
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
            depth = max(1, self._dataset.max_queue_size)
            for ticket in tickets:
                waiting.append(pool.submit(fetch, *ticket))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def state(self) -> object:
        """All follows from the seed: nothing to keep."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """The number of batches."""
        described: dict[str, Any] = {"batches": self._route.batches}
        if self._route.steps_per_epoch:
            described["steps_per_epoch"] = self._route.steps_per_epoch
        return described

    def reasons(self) -> tuple[str, ...]:
        """Whether the first batch came out alike twice."""
        if self._repeats is False:
            return (*self._draws.reasons(), "the PyDataset gave another batch when asked twice")
        return self._draws.reasons()

    def notices(self) -> tuple[str, ...]:
        """Nothing to say."""
        return ()


def _begin_worker(dataset: Any) -> None:
    _in_worker["dataset"] = dataset
    _in_worker["draws"] = KeyedDraws(dataset)


def _fetch_in_worker(seed: int, index: int) -> Any:
    with _in_worker["draws"].at(seed):
        return _in_worker["dataset"][index]
