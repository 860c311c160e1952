"""A DataLoader over a map-style dataset, entered at any batch without fetching those before."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch.utils import data as torch_data

from colabkit.errors import ArgumentError
from colabkit.frameworks.base import Start
from colabkit.frameworks.own_generators import TOO_MANY
from colabkit.frameworks.seeding import derive
from colabkit.frameworks.torch.compare import batch_digest
from colabkit.frameworks.torch.dataset_watch import DatasetWatch, versions_of
from colabkit.frameworks.torch.fetch import BatchRequest, RequestDataset, Trial, own_generators
from colabkit.frameworks.torch.loading import InitInWorker, identity, length_of, pinned
from colabkit.frameworks.torch.memory import aligned, in_own_memory, share_memory
from colabkit.frameworks.torch.parts import Parts, RequestCutter, Share
from colabkit.frameworks.torch.randomness import seed_everything
from colabkit.frameworks.users_own import attributes_of

# One by itself, worker or none, fetches a batch so often to show how it behaves.
_ALONE = 2
_DRAWS_ONCE = (
    torch_data.SequentialSampler,
    torch_data.RandomSampler,
    torch_data.SubsetRandomSampler,
    torch_data.WeightedRandomSampler,
)


class MapFeed:
    """A DataLoader over a map-style dataset, rebuilt so that workers change nothing."""

    def __init__(self, loader: torch_data.DataLoader[Any], *, pin: bool) -> None:
        self._loader = loader
        self._collated = loader.batch_sampler is not None
        self._sampler: Any = loader.batch_sampler if self._collated else loader.sampler
        self._dataset = RequestDataset(
            loader.dataset, loader.collate_fn, whole_batches=self._collated
        )
        self._order_generators = own_generators(self._sampler, loader.sampler)
        self._pin = pin
        self._requests: Iterator[BatchRequest] = iter(())
        self._workers: torch_data.DataLoader[Any] | None = None
        self._watch = DatasetWatch(loader.dataset)
        self._versions: dict[str, tuple[int, int]] = {}
        self._repeats: bool | None = None
        self._may_keep = _outlives_its_use(loader)
        self._keeps_drawn = False
        self._goes_by: list[str] = []
        # PyTorch's own collation stacks into new tensors; any other may hand out what it keeps.
        self._stacks = self._collated and loader.collate_fn is torch_data.default_collate
        self._hand_out: Callable[[Any], Any] = aligned
        self._order_repeats: bool | None = None
        self.length: int | None = length_of(self._sampler)

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields batches from the index order replayed under the key."""
        return self._read(start, lambda requests: requests)

    def parts(self, start: Start, share: Share) -> Iterator[Parts]:
        """Yields, of each batch, the parts that one process takes: no others are fetched.

        Raises:
            ArgumentError: The order is another each time, so no two processes would agree on it.
        """
        cutter = RequestCutter(share)

        def cut(requests: Iterator[BatchRequest]) -> Iterator[BatchRequest]:
            if not self._order_repeats:
                raise _unsteady_order_error()
            return cutter.requests(requests)

        return cutter.parts(self._read(start, cut))

    def samples_of_last(self) -> int | None:
        """Returns how many samples the last batch of a pass has, None where nobody says so."""
        samples, size = length_of(self._loader.sampler), self._loader.batch_size
        if not samples or size is None or self._loader.drop_last:
            return size
        return (samples - 1) % size + 1

    def first_sample(self) -> str:
        """Returns a hash of the first sample in an order; "" where it would tell nothing."""
        start = Start(key=0, epoch=0)
        with _asked_in_vain(self._sampler, self._loader.sampler):
            head = list(itertools.islice(self._order(start), 1))
        if not head or self._loader.num_workers or not self._same_order_twice(start):
            return ""
        request = BatchRequest(0, head[0].indices[:1])
        found = {batch_digest(self._dataset[request]) for _ in range(2)}
        return found.pop() if len(found) == 1 else ""

    @property
    def has_workers(self) -> bool:
        """Whether other processes fetch, ahead of what is asked for."""
        return self._loader.num_workers > 0

    def is_shared_out(self) -> bool:
        """Whether its sampler may give each process other samples.

        One does that is none of PyTorch's own, or draws with replacement, by each process's seed.
        """
        loader = self._loader
        sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
        if getattr(sampler, "replacement", False) is True:
            return True
        kinds = (type(loader.sampler), type(loader.batch_sampler))
        is_plain = all(kind.__module__.startswith("torch.utils.data.sampler") for kind in kinds)
        return not is_plain

    def uncut(self) -> str:
        """Returns why batches cannot be cut, "" where they can."""
        if isinstance(self._loader.sampler, torch_data.DistributedSampler):
            return "its DistributedSampler shares the samples out already (leave it out)"
        return "" if self._collated else "its loader makes no batches (batch_size=None)"

    def _read(
        self, start: Start, cut: Callable[[Iterator[BatchRequest]], Iterator[BatchRequest]]
    ) -> Iterator[Any]:
        if self._order_repeats is None:
            self._order_repeats = self._same_order_twice(start)
        self._versions = versions_of(self._loader)
        requests = cut(itertools.islice(self._order(start), start.skip, None))
        probing = self._repeats is None
        # Workers take turns, and forked ones hold equal copies of what the dataset hides: only
        # one that is asked twice itself shows whether it repeats.
        times = max(2, self._loader.num_workers + 1)
        requests = _tried_first(requests, times, self._may_keep) if probing else requests
        fetched = self._fetch(requests)
        try:
            if probing:
                yield from self._compare_first(fetched, times)
            yield from fetched if self._stacks else map(self._hand_out, fetched)
        finally:
            self._watch.compare(self._versions, versions_of(self._loader))
            self._versions = {}
            if self._workers is None or not self._loader.persistent_workers:
                self._watch.end()

    def _fetch(self, requests: Iterator[BatchRequest]) -> Iterator[Any]:
        if self._loader.num_workers == 0:
            fetch = self._dataset.__getitem__ if self._dataset.is_plain else self._fetch_here
            batches = map(fetch, requests)
            return map(pinned, batches) if self._pin else batches
        self._requests = requests
        if self._workers is None or not self._loader.persistent_workers:
            self._workers = self._loader_with_workers()
            self._watch.note()
        return iter(self._workers)

    def _fetch_here(self, request: BatchRequest) -> Any:
        self._watch.look()
        batch = self._dataset[request]
        self._watch.note()
        return batch

    def _loader_with_workers(self) -> torch_data.DataLoader[Any]:
        given = self._loader
        return torch_data.DataLoader(
            self._dataset,
            batch_size=None,
            sampler=_Handed(self),
            collate_fn=identity,
            num_workers=given.num_workers,
            pin_memory=self._pin,
            timeout=given.timeout,
            worker_init_fn=InitInWorker(given.worker_init_fn),
            multiprocessing_context=given.multiprocessing_context,
            generator=torch.Generator().manual_seed(0),
            prefetch_factor=given.prefetch_factor,
            persistent_workers=given.persistent_workers,
        )

    def _order(self, start: Start) -> Iterator[BatchRequest]:
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
            yield BatchRequest(derive(start.key, number), found[0])

    def _seed_order(self, seed: int) -> None:
        seed_everything(seed)
        self._order_generators.reseed(seed)

    def _same_order_twice(self, start: Start) -> bool:
        with _asked_in_vain(self._sampler, self._loader.sampler):
            heads = [
                [each.indices for each in itertools.islice(self._order(start), 2)] for _ in range(2)
            ]
        return heads[0] == heads[1]

    def _compare_first(self, fetched: Iterator[Any], times: int) -> Iterator[Any]:
        trials: list[Trial] = list(itertools.islice(fetched, times))
        if trials:
            batches = [each.batch for each in trials]
            if any(share_memory(batches[0], other) for other in batches[1:]):
                self._hand_out = in_own_memory
            alike = batches[1:] if self._may_keep and times > _ALONE else batches
            self._repeats = len(set(map(batch_digest, alike))) == 1
            # One fetches first and last.
            is_kept = trials[0].drew and not trials[-1].drew
            self._keeps_drawn = is_kept and self._may_keep
            then, now = trials[0].counts, trials[-1].counts
            self._goes_by = self._dataset.counts().gone_by(then, now)
            yield self._hand_out(batches[-1])

    def state(self) -> object:
        """The order and every batch follow from the key: nothing to keep."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """Samples and batch size, where the loader says them, and who each takes a batch."""
        said = {
            "samples": length_of(self._loader.dataset),
            "batch_size": self._loader.batch_size,
            "batches": self.length,
        }
        sampler = self._loader.sampler
        if type(sampler) is torch_data.DistributedSampler:
            said["replicas"] = sampler.num_replicas
        return said

    def reasons(self) -> tuple[str, ...]:
        """What the fetches of the first batch showed."""
        found = []
        if self._repeats is False and not self._keeps_drawn:
            found.append(
                "the dataset gave another batch when asked twice under the same seed"
                " (it draws from a source that cannot be seeded, counts its calls, or keeps what"
                " it has drawn)"
            )
        if self._keeps_drawn:
            found.append(
                "the dataset keeps what it has drawn for a sample, in a cache say, which a resume"
                " begins anew"
            )
        if self._goes_by and self._repeats:
            found.append(
                f"the data counts in {', '.join(self._goes_by)} what it fetches, and goes by that:"
                " a resume begins it anew"
            )
        self._watch.look()
        self._watch.compare(self._versions, versions_of(self._loader))
        if self._watch.changed:
            found.append(self._said_of_changes(", ".join(self._watch.changed)))
        if self._order_repeats is False:
            found.append(
                "the sampler gave another order when asked twice under the same seed (one that"
                " counts its passes is told the number of each by a method set_epoch)"
            )
        own = own_generators(self._loader.dataset, self._sampler)
        if own.unseedable():
            found.append("the data holds a random.SystemRandom, which cannot be seeded")
        if own.leave_some():
            found.append(TOO_MANY)
        return tuple(found)

    def _said_of_changes(self, what: str) -> str:
        if self._loader.persistent_workers:
            return (
                f"the dataset's {what} changed after its workers had begun, which hold it as it was"
                " (persistent_workers=False shows it to those of each epoch)"
            )
        return f"the dataset's {what} changed in mid-epoch, which a resume there finds changed"

    def notices(self) -> tuple[str, ...]:
        return ()


class _Handed(torch_data.Sampler[BatchRequest]):
    """Hands the requests of the pass under way to the DataLoader."""

    def __init__(self, feed: MapFeed) -> None:
        self._feed = feed

    def __iter__(self) -> Iterator[BatchRequest]:
        return self._feed._requests  # two halves of one object


def _unsteady_order_error() -> ArgumentError:
    message = (
        "Several processes take parts of each batch, and the sampler gives another order each time"
        " it is asked: samples would be trained twice, or never."
    )
    hint = "Let it draw from torch's, NumPy's or Python's generators, or from one it keeps itself."
    return ArgumentError(message, argument="data", hint=hint)


@contextlib.contextmanager
def _asked_in_vain(*samplers: Any) -> Iterator[None]:
    """Has samplers that count how often they were asked for an order not count this time."""
    own = [attributes_of(each) for each in samplers]
    kept = [{n: e for n, e in each.items() if type(e) in {bool, int, float}} for each in own]
    yield
    for there, before in zip(own, kept, strict=True):
        cast("dict[str, Any]", there).update(before)


def _outlives_its_use(loader: torch_data.DataLoader[Any]) -> bool:
    """Whether a sample may be fetched a second time by who has fetched it."""
    if loader.num_workers == 0 or loader.persistent_workers:
        return True
    sampler: Any = loader.sampler
    if type(loader.batch_sampler) not in {torch_data.BatchSampler, type(None)}:
        return True
    if type(sampler) is torch_data.RandomSampler:
        return bool(sampler.replacement or sampler.num_samples > len(sampler.data_source))
    return type(sampler) not in {torch_data.SequentialSampler, torch_data.SubsetRandomSampler}


def _draws_once(sampler: Any) -> bool:
    inner = sampler.sampler if type(sampler) is torch_data.BatchSampler else sampler
    return type(inner) in _DRAWS_ONCE


def _tried_first(
    requests: Iterator[BatchRequest], times: int, may_keep: bool
) -> Iterator[BatchRequest]:
    """Yields the first of all several times.

    Where several workers take turns, the one that is asked twice is asked under another seed
    first: what it keeps of that, the others have not.
    """
    for first in itertools.islice(requests, 1):
        trial = first._replace(is_trial=True)
        other = trial._replace(seed=derive(first.seed, "another"))
        yield other if may_keep and times > _ALONE else trial
        yield from itertools.repeat(trial, times - 1)
    yield from requests
