"""Iterables as a source of batches: from their own state, or read again from the beginning."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils import data as torch_data

from colabkit.frameworks.base import Start
from colabkit.frameworks.batch_records import Head, KeptBatch
from colabkit.frameworks.lending import lend
from colabkit.frameworks.own_generators import MADE_LATE, TOO_MANY, OwnGenerators, makes_some_late
from colabkit.frameworks.seeding import derive
from colabkit.frameworks.torch.compare import batch_digest, record, same_batch
from colabkit.frameworks.torch.fetch import Ahead, KeyedStream, own_generators
from colabkit.frameworks.torch.loading import (
    InitInWorker,
    end_workers,
    identity,
    length_of,
    loader_within,
    pinned,
)
from colabkit.frameworks.torch.memory import aligned, in_own_memory, share_memory
from colabkit.frameworks.torch.pipelines import (
    come_to_the_end,
    counts_alone,
    end_readers,
    forget_old_state,
    forgets_its_buffer,
    hugging_face_stream,
    is_of_nodes,
    readers_of_nodes,
    says_its_place,
)
from colabkit.frameworks.torch.randomness import seed_everything
from colabkit.frameworks.torch.thread_starts import thread_starts

_DIFFERS = (
    "the data gives other batches when it goes on from its own state, as a resume has it do (it"
    " draws where no seed reaches, in threads of its own say, or its state leaves something out)"
)
_CONDITION = (
    "where its nodes and threads draw nothing at random but an order, once a pass: what else they"
    " draw no seed reaches"
)
_READERS_MAX = 16


class StreamFeed:
    """An iterable dataset, a loader with its own state, or any iterable of batches.

    A source with ``state_dict`` goes on from its state; what it gave first, and the state that it
    had before, tell at a resume whether it is the source that it was. Any other is read again from
    its beginning, and the batches already trained are thrown away.
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
        self._makes = callable(source) and not isinstance(source, Iterable)
        self._workers = loader.num_workers if loader is not None else 0
        inner = loader_within(source)
        within = inner.num_workers if inner is not None else readers_of_nodes(source)
        self._readers = max(1, self._workers, within)
        self._reads_in_threads = False
        self._first: list[str] = []
        if self._workers:
            # What comes from another process was copied on its way.
            self._hand_out = aligned
        has_state = says_its_place(source)
        is_whole = has_state and not (self._workers or forgets_its_buffer(source))
        is_whole = is_whole and not counts_alone(source)
        self._stateful: Any = source if is_whole else None
        self._one_shot = not has_state and isinstance(source, Iterator)
        self._ahead: Ahead | None = None
        self._has_ended = False
        self._said: dict[str, Any] | None = None
        self._passes = 0
        self._probed = False
        self._fresh = ""
        self._head: Head | None = None
        self._problems: dict[str, None] = {}
        self.length: int | None = (
            None if self._makes else length_of(source if loader is None else loader)
        )

    @property
    def goes_back(self) -> bool:
        """Whether a pass can be entered before the place that the source's own state names."""
        return self._stateful is None

    @property
    def keeper(self) -> Any:
        """The object whose state is the source's place; itself where it has none."""
        return self if self._stateful is None else self._stateful

    def lend(self) -> Callable[[], bool]:
        """Lets go of what it reads, between two passes; returns what takes it back where it is."""
        return lend(self, ("_source", "_stateful", "_loader"))

    def gave(self, state: Mapping[str, Any]) -> bool:
        """Whether it gives first what the source of a checkpoint's state gave; not yet read."""
        head = Head.of_state(state.get("head"))
        if head is None:
            return True
        fresh, known = self._own_state(), (self._passes, self._head)
        first: list[Any] = []
        # What is another source's may not even be loaded.
        with contextlib.suppress(Exception):
            batches = self.batches(
                Start(head.key, head.kept.epoch, state={**state, "source": head.source})
            )
            first.extend(itertools.islice(batches, 1))
        self._stateful.load_state_dict(fresh)
        self._passes, self._head = known
        return bool(first) and record(first[0]) == head.kept.record

    @property
    def begins_anew(self) -> bool:
        """Whether each reading begins at the beginning, wherever the one before was left."""
        return self._stateful is None or hugging_face_stream(self._source) is self._source

    @property
    def reads_once(self) -> bool:
        """Whether the source is an iterator, good for one pass only."""
        return self._one_shot

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields batches, from the source's own state or by reading again."""
        told: Any
        sampler = getattr(self._source, "sampler", None)
        for told in (self._source, sampler, hugging_face_stream(self._source)):
            if hasattr(told, "set_epoch"):
                told.set_epoch(start.epoch)
        state = start.state if isinstance(start.state, Mapping) else {}
        stream = self._resumed(start, state) if start.skip else self._from_the_top(start, state)
        self._said, self._has_ended = None, False
        if self._stateful is not None:
            self._ahead = stream = Ahead(stream)
        try:
            for batch in stream:
                self._said = None
                own = batch if self._stacks else self._hand_out(batch)
                yield pinned(own) if self._pin else own
            self._has_ended = True
        finally:
            self._take_back()

    def _take_back(self) -> None:
        """Gives the source back what was fetched only to see whether it had ended."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.holds_one and self._said and "source" in self._said:
            self._stateful.load_state_dict(copy.deepcopy(self._said["source"]))

    def _from_the_top(self, start: Start, state: Mapping[str, Any]) -> Iterator[Any]:
        is_first = self._stateful is not None and self._passes == 0
        fresh = self._put_at_the_top(start, state)
        is_first = is_first and self._head is None
        self._passes += 1
        if self._can_probe() and not self._probed:
            self._probe(start.key)
        batches = self._open(start.key, 0)
        if is_first:
            for first in itertools.islice(batches, 1):
                kept = KeptBatch(record(first), start.epoch, (*self.reasons(), *self._conditions()))
                self._head = Head(kept, start.key, fresh)
                if self._first not in ([], [batch_digest(first)]):
                    self._problems[_DIFFERS] = None
                yield first
        yield from batches

    def _goes_on_from_its_state(self, key: int, fresh: Any) -> bool:
        """Whether its next batches are the same where it goes on from its state, and once more.

        Workers take turns: of so many batches, one is of a worker that has given one before.
        """
        count = 2 + min(self._readers, _READERS_MAX)
        # Asked for its state, it may have begun to read, under no seed.
        _digests(self._open(key, 0), 1)
        self._stateful.load_state_dict(copy.deepcopy(fresh))
        batches = self._open(key, 0)
        self._first = _digests(batches, 1)
        after = self._own_state()
        then = _digests(batches, count)
        again: list[str] = []
        if then:
            self._stateful.load_state_dict(after)
            batches = self._open(key, 1)
            again += _digests(batches, 1)
        if len(then) > 1:
            self._stateful.load_state_dict(self._own_state())
            again += _digests(self._open(key, 2), count - 1)
        self._stateful.load_state_dict(copy.deepcopy(fresh))
        return then == again

    def _put_at_the_top(self, start: Start, state: Mapping[str, Any]) -> Any:
        """Has a source with a state begin a pass; returns the state before its very first one."""
        is_first = self._passes == 0
        if self._passes and (stream := hugging_face_stream(self._source)) is not None:
            # It goes back to the state that it was given last, for as long as its epoch lasts.
            stream.load_state_dict(None)
        elif self._stateful is not None and (head := Head.of_state(state.get("head"))):
            # Another session has read the pass before.
            self._head = head
            self._load(state.get("source", head.source), at_an_end="has_ended" in state)
        elif self._stateful is not None and is_first:
            # Not before a state is loaded: some sources begin to read when they are asked, and go
            # on from there.
            fresh = state["source"] if "source" in state else self._own_state()
            if "source" not in state:
                self._fresh = batch_digest(fresh)
            if not self._goes_on_from_its_state(start.key, fresh):
                self._problems[_DIFFERS] = None
            return fresh
        return None

    def _load(self, source: Any, *, at_an_end: bool) -> None:
        self._stateful.load_state_dict(source)
        if at_an_end:
            come_to_the_end(self._stateful)

    def _can_probe(self) -> bool:
        # A worker has a copy of what can be read once only.
        return self._stateful is None and not (self._one_shot and not self._workers)

    def _probe(self, key: int) -> None:
        """Reads the first batches twice, which tells whether they repeat, and share memory."""
        self._probed = True
        # Workers take turns: so many batches are the first of each.
        heads = [list(itertools.islice(self._open(key, 0), self._readers)) for _ in range(2)]
        if not share_memory(*heads):
            self._hand_out = aligned
        if not same_batch(heads[0], heads[1]):
            self._problems["the iterable gave another first batch when read again"] = None

    def _resumed(self, start: Start, state: Mapping[str, Any]) -> Iterator[Any]:
        self._passes += 1
        self._head = Head.of_state(state.get("head"))
        if state.get("workers", self._workers) != self._workers:
            then = state["workers"]
            reason = f"the iterable dataset is read by {self._workers} workers, was by {then}"
            self._problems[reason] = None
        if state.get("has_ended") and hugging_face_stream(self._source) is not None:
            # The next pass begins anew, and a loader would give it the end that it was loaded with.
            return
        if "source" in state and self._stateful is not None:
            self._load(state["source"], at_an_end="has_ended" in state)
        elif self._head is not None and self._stateful is not None:
            # Its first batch has just been read again.
            self._stateful.load_state_dict(self._head.source)
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
        return iter(self._spread(stream)) if self._workers else stream.from_batch(first)

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
        generators = own_generators(self._source)
        end_readers(self._source)
        if self._stateful is None:
            end_workers(self._source)
        self._seed(generators, derive(key, "iter"))
        with thread_starts() as readers:
            stream = iter(self._source() if self._makes else self._source)
        self._reads_in_threads |= bool(readers)
        for number in itertools.count(first):
            # What draws an order piece by piece is read from its beginning there by a resume, under
            # the seed of iter() alone.
            if number and (self._reads_in_threads or is_of_nodes(self._source)):
                seed_everything(derive(key, number))
            elif number:
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
        if self._stateful is None:
            return {"workers": self._workers}
        if self._said is None:
            self._said = self._place()
        return self._said

    def _place(self) -> dict[str, Any]:
        """Returns the state after the newest batch; after the last, that of the next pass."""
        source = self._own_state()
        state: dict[str, Any] = {"workers": self._workers}
        if self._has_ended or (self._ahead is not None and self._ahead.has_ended()):
            # Some go back to their beginning with their last batch, others when they have ended,
            # or are loaded there.
            state["has_ended"] = True
            source = self._own_state()
        if batch_digest(source) != self._fresh:
            state["source"] = source
        if self._head is not None:
            state["head"] = self._head.state_dict()
        return state

    def _own_state(self) -> Any:
        """Returns a copy of the source's state, which may be live."""
        forget_old_state(self._stateful)
        state = self._stateful.state_dict()
        try:
            return copy.deepcopy(state)
        except TypeError:
            # What cannot be copied cannot be stored either, and saving names it.
            return state

    def describe(self) -> Mapping[str, Any]:
        """Length and batch size, where the source says them."""
        return {
            "batches": self.length,
            "batch_size": getattr(self._loader, "batch_size", None),
        }

    def reasons(self) -> tuple[str, ...]:
        """What reading again has shown so far."""
        late = (MADE_LATE,) if makes_some_late(self._source) else ()
        some = (TOO_MANY,) if own_generators(self._source).leave_some() else ()
        return (*self._problems, *late, *some)

    def notices(self) -> tuple[str, ...]:
        """What a resume costs."""
        if self._stateful is not None:
            return self._conditions()
        notice = (
            "this iterable is read again from its beginning by a resume, which checks that it"
            " gives the same batches"
        )
        return (notice,)

    def _conditions(self) -> tuple[str, ...]:
        """Under what condition the source's own state is enough."""
        if is_of_nodes(self._stateful) or (self._stateful is not None and self._reads_in_threads):
            return (_CONDITION,)
        return ()


def _digests(batches: Iterator[Any], count: int) -> list[str]:
    """Returns hashes of the next batches, up to one that fails, which does so where it is due."""
    found: list[str] = []
    with contextlib.suppress(Exception):
        found.extend(map(batch_digest, itertools.islice(batches, count)))
    return found
