"""A keras PyDataset as a source of batches that can begin anywhere, with any workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from colabkit.errors import ArgumentError
from colabkit.frameworks.base import Start
from colabkit.frameworks.keras.dataset_fetch import BatchRequest, DatasetFetch
from colabkit.frameworks.keras.places import SHARED, Route
from colabkit.frameworks.seeding import derive


class DatasetFeed:
    """Batches of a PyDataset, every random draw of theirs keyed to the batch.

    Args:
        dataset: The user's PyDataset.
        shuffle: Whether the batches come in another order in each pass.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch, or None for a pass.
        limit: Batches of each pass that are read, or None for all.
        validates: Whether it is validation data, whose hooks Keras calls otherwise.
        is_shared: Whether training and validation data are one object.
    """

    def __init__(
        self,
        dataset: keras.utils.PyDataset,
        *,
        shuffle: bool,
        seed: int,
        steps_per_epoch: int | None = None,
        limit: int | None = None,
        validates: bool = False,
        is_shared: bool = False,
    ) -> None:
        batches = dataset.num_batches
        if limit is not None:
            batches = limit if batches is None else min(batches, limit)
        if batches is None and steps_per_epoch is None:
            message = "data is a PyDataset without an end."
            hint = "Pass steps_per_epoch, or give it a __len__."
            raise ArgumentError(message, argument="steps_per_epoch", hint=hint)
        self._dataset = dataset
        self._shuffle = shuffle and batches is not None
        self._seed = self._own_seed = seed
        self._route = Route(batches, steps_per_epoch, is_endless=batches is None)
        self._fetch = DatasetFetch(dataset)
        self._validates = validates
        self._is_shared = is_shared
        self._epochs_begun = 0
        self.length = self._route.length

    def length_of(self, epoch: int) -> int | None:
        return self._route.span(epoch).count

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of an epoch from ``start.skip`` on."""
        self._begin_epoch(start.epoch)
        return self._fetch.all(self._requests(start))

    def again(self, start: Start, *, goes_on: bool) -> Iterator[Any]:  # noqa: ARG002
        """Yields the batches from a place on, fetched one by one."""
        self._begin_epoch(start.epoch)
        return map(self._fetch.one, self._requests(start))

    @property
    def reading_has_effects(self) -> bool:
        """Whether the dataset has hooks of its own, which a look calls as well."""
        base, own = keras.utils.PyDataset, type(self._dataset)
        hooks = ("on_epoch_begin", "on_epoch_end")
        return any(getattr(own, hook) is not getattr(base, hook) for hook in hooks)

    def _requests(self, start: Start) -> list[BatchRequest]:
        span = self._route.span(start.epoch)
        order = self._order(span.turn)
        return [
            (
                derive(self._seed, "batch", span.turn, number),
                number if order is None else int(order[number]),
            )
            for number in range(span.first + start.skip, span.first + (span.count or 0))
        ]

    def _begin_epoch(self, epoch: int) -> None:
        """Calls the dataset's own hooks as often as Keras would have, each under its key."""
        while self._epochs_begun <= epoch:
            number = self._epochs_begun
            with self._fetch.draws.at(derive(self._seed, "turn", number)):
                if self._validates and number:
                    # Keras ends a validation, and ends whatever was before it begins one.
                    self._dataset.on_epoch_end()
                self._dataset.on_epoch_end()
                self._dataset.on_epoch_begin()
            self._epochs_begun = number + 1

    def _order(self, turn: int) -> Any:
        count = self._route.batches
        if not self._shuffle or count is None:
            return None
        return np.random.default_rng(derive(self._seed, "order", turn)).permutation(count)

    def pass_on(self, end: Start) -> None:
        """Calls the hooks that the epochs would have."""
        self._begin_epoch(end.epoch - 1)

    def reseed(self, number: int) -> None:
        """Has all draws differ from those without the number."""
        self._seed = derive(self._own_seed, "from", number)

    def state(self) -> object:
        """All follows from the seed: nothing to keep."""
        return None

    def close(self) -> None:
        """Nothing was changed."""

    def describe(self) -> Mapping[str, Any]:
        """The number of batches."""
        described: dict[str, Any] = {"batches": self._route.batches}
        if self._route.steps_per_epoch:
            described["steps_per_epoch"] = self._route.steps_per_epoch
        return described

    def reasons(self) -> tuple[str, ...]:
        """Whether the first batch came out alike twice."""
        reasons = self._fetch.draws.reasons()
        if self._is_shared and self.reading_has_effects:
            reasons = (*reasons, SHARED)
        if self._fetch.repeats is False:
            return (*reasons, "the PyDataset gave another batch when asked twice")
        return reasons

    def notices(self) -> tuple[str, ...]:
        return ()
