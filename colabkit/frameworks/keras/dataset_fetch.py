"""Fetches batches of a PyDataset, one after the other or by workers, each under its key."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import copy
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from colabkit.frameworks.generators import find_generators, reseed
from colabkit.frameworks.keras.compare import same_batch
from colabkit.frameworks.keras.randomness import STREAMS, KeyedDraws, renew_lock
from colabkit.frameworks.keras.thread_streams import (
    global_states,
    own_streams,
    streams_by_thread,
)
from colabkit.frameworks.own_generators import TRIES_MAX
from colabkit.frameworks.seeding import derive
from colabkit.frameworks.users_own import attributes_of, set_attribute

_in_worker: dict[str, Any] = {}
_MISSING = object()

BatchRequest = tuple[int, int]


class DatasetFetch:
    """Gives the batch of a number, whose draws a seed decides, whoever fetches it.

    Attributes:
        repeats: Whether the first batch came out alike twice; None before it is fetched.

    Args:
        dataset: The user's PyDataset.
    """

    def __init__(self, dataset: Any) -> None:
        self.draws = KeyedDraws(dataset)
        self.repeats: bool | None = None
        self._dataset = dataset
        self._own: list[object] = []
        self._is_apart = False

    def all(self, requests: Sequence[BatchRequest]) -> Iterator[Any]:
        """Yields the batches of requests, each a seed and a number, in their order."""
        if not requests:
            return
        dataset = self._dataset
        threads = dataset.workers > 1 and not dataset.use_multiprocessing
        if self.repeats is None:
            self._inspect(requests[0], threads=threads)
        if dataset.workers <= 1 and not (dataset.workers and dataset.use_multiprocessing):
            yield from itertools.starmap(self._one, requests)
            return
        with contextlib.ExitStack() as stack:
            pool: concurrent.futures.Executor
            fetch: Callable[[int, int], Any] = _fetch_in_worker
            if threads:
                fetch = self._one
                if self._is_apart:
                    fetch = self._apart
                    stack.enter_context(streams_by_thread())
                pool = concurrent.futures.ThreadPoolExecutor(dataset.workers, "colabkit-data")
            else:
                pool = concurrent.futures.ProcessPoolExecutor(
                    dataset.workers,
                    mp_context=multiprocessing.get_context(),
                    initializer=_begin_worker,
                    initargs=(dataset,),
                )
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            yield from _in_order(pool, fetch, requests, ahead=max(1, dataset.max_queue_size))

    def one(self, request: BatchRequest) -> Any:
        """Returns the batch of a request, a seed and a number."""
        return self._one(*request)

    def _inspect(self, request: BatchRequest, *, threads: bool) -> None:
        """Fetches a batch twice: are they alike, and can threads do so at a time?"""
        first = self._one(*request)
        self._own = find_generators(self._dataset, ())
        held = {id(value) for value in attributes_of(self._dataset).values()}
        if threads and all(id(generator) in held for generator in self._own):
            with STREAMS, streams_by_thread():
                before = global_states()
                again = self._apart(*request)
                self._is_apart = global_states() == before and same_batch(first, again)
        self.repeats = self._is_apart or same_batch(first, self._one(*request))

    def _one(self, seed: int, index: int) -> Any:
        """Fetches a batch while nobody else draws."""
        return _drawn(self._dataset, self.draws, seed, index)

    def _apart(self, seed: int, index: int) -> Any:
        """Fetches a batch while others do, with streams and generators of its own."""
        with own_streams(seed):
            if not self._own:
                return self._dataset[index]
            view, given = self._view(seed)
            batch = view[index]
        self._take_back(view, given)
        return batch

    def _view(self, seed: int) -> tuple[Any, dict[str, Any]]:
        """Returns a dataset that differs only in its generators, and its attributes."""
        copies = {}
        for number, generator in enumerate(self._own):
            copies[id(generator)] = own = copy.deepcopy(generator)
            reseed(own, derive(seed, number))
        attributes = attributes_of(self._dataset)
        given = {name: copies.get(id(value), value) for name, value in attributes.items()}
        view = object.__new__(type(self._dataset))
        for name, value in given.items():
            object.__setattr__(view, name, value)
        return view, given

    def _take_back(self, view: Any, given: dict[str, Any]) -> None:
        """Keeps what a fetch set, a file that it opened for example."""
        for name, value in attributes_of(view).items():
            if given.get(name, _MISSING) is not value and not find_generators(value, ()):
                set_attribute(self._dataset, name, value)


def _in_order(
    pool: concurrent.futures.Executor,
    fetch: Callable[[int, int], Any],
    requests: Sequence[BatchRequest],
    *,
    ahead: int,
) -> Iterator[Any]:
    waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    for request in requests:
        waiting.append(pool.submit(fetch, *request))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _begin_worker(dataset: Any) -> None:
    # Whoever held the lock when this process was forked lives on in the other one.
    renew_lock()
    _in_worker["dataset"] = dataset
    _in_worker["draws"] = KeyedDraws(dataset)


def _fetch_in_worker(seed: int, index: int) -> Any:
    return _drawn(_in_worker["dataset"], _in_worker["draws"], seed, index)


def _drawn(dataset: Any, draws: KeyedDraws, seed: int, index: int) -> Any:
    for _ in range(TRIES_MAX):
        with draws.at(seed):
            batch = dataset[index]
            if not draws.have_come():
                break
    return batch
