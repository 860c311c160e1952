"""A tf.data pipeline as a source of batches: its random draws come again by beginning again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from colabkit.errors import ArgumentError
from colabkit.training.feed import Start
from colabkit.training.keras_side.places import Route, Turn
from colabkit.training.keras_side.tfdata_look import look_into
from colabkit.training.seeding import derive


class TfDataFeed:
    """A tf.data.Dataset, or a function that makes one for each epoch.

    Args:
        source: The dataset, or the function.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch, or None for a pass.
        limit: Batches of each pass that are read, or None for all.
        transform: Applied to each batch within the pipeline, or None.
    """

    def __init__(
        self,
        source: Any,
        *,
        seed: int,
        steps_per_epoch: int | None = None,
        limit: int | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self._make = source if callable(source) and not is_dataset(source) else None
        self._seed = seed
        self._limit = limit
        self._transform = transform
        self._dataset = self._finished(self._made_for(0) if self._make else source)
        self._look = look_into(self._dataset, replayed=self._make is None)
        self._iterators_made = 0
        self._live: Any = None
        self._turn = 0
        is_endless = bool(self._dataset.cardinality() == tf.data.INFINITE_CARDINALITY)
        if is_endless and steps_per_epoch is None:
            message = "data is a tf.data pipeline without an end."
            hint = "Pass steps_per_epoch, or leave its .repeat() out."
            raise ArgumentError(message, argument="steps_per_epoch", hint=hint)
        batches = _cardinality(self._dataset)
        self._route = Route(batches, steps_per_epoch, is_endless=is_endless)
        self.length = self._route.length

    @property
    def template(self) -> tf.data.Dataset:
        """A dataset of the same elements."""
        return self._dataset

    def _made_for(self, epoch: int) -> Any:
        tf.random.set_seed(derive(self._seed, "turn", epoch) & 0x7FFFFFFF)
        made = self._make() if self._make is not None else None
        if not is_dataset(made):
            message = f"The function given as data returns a {type(made).__name__}."
            hint = "Return a tf.data.Dataset each time."
            raise ArgumentError(message, argument="data", hint=hint)
        return made

    def _finished(self, dataset: Any) -> Any:
        transform = self._transform
        if transform is not None:
            dataset = dataset.map(lambda *parts: transform(parts))
        return dataset if self._limit is None else dataset.take(self._limit)

    def length_of(self, epoch: int) -> int | None:
        """Returns the batches in an epoch, None where only reading tells."""
        return self._route.span(epoch).count

    def iterator(self, start: Start) -> Iterator[Any]:
        """Returns TensorFlow's own iterator over an epoch from ``start.skip`` on.

        With ``steps_per_epoch`` it goes on beyond the epoch, into the next.
        """
        span = self._route.span(start.epoch, start.state if isinstance(start.state, Turn) else None)
        if self._route.steps_per_epoch is None:
            return self._begun(span.turn, start.skip)
        if self._live is None or span.turn != self._turn:
            self._live, self._turn = self._begun(span.turn, span.first + start.skip), span.turn
        live: Iterator[Any] = self._live
        return live

    def _begun(self, turn: int, skip: int) -> Iterator[Any]:
        if self._make is not None:
            made: Iterator[Any] = _from(self._finished(self._made_for(turn)), skip)
            return made
        self._begin_as_before(turn)
        self._iterators_made += 1
        begun: Iterator[Any] = _from(self._dataset, skip)
        return begun

    def _begin_as_before(self, turn: int) -> None:
        """Makes the iterators of the passes before: each draws its own order from the seed."""
        while self._iterators_made < turn:
            iterator = iter(self._dataset)
            if self._look.first_pass_is_kept and self._iterators_made == 0:
                for _ in iterator:
                    pass
            self._iterators_made += 1

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of an epoch from ``start.skip`` on."""
        size = self._route.steps_per_epoch
        left = None if size is None else size - start.skip
        return itertools.islice(self.iterator(start), left)

    def state(self) -> object:
        """The count of batches says it all."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """The number of batches, where it is known."""
        return {"batches": self.length}

    def reasons(self) -> tuple[str, ...]:
        """What in the pipeline cannot be repeated."""
        return self._look.reasons

    def notices(self) -> tuple[str, ...]:
        """A resume runs the pipeline over what was already trained on."""
        return self._look.notices


def is_dataset(value: object) -> bool:
    """Whether a value is a tf.data.Dataset."""
    return isinstance(value, tf.data.Dataset)


def _from(dataset: Any, skip: int) -> Any:
    return iter(dataset.skip(skip) if skip else dataset)


def _cardinality(dataset: Any) -> int | None:
    count = int(dataset.cardinality())
    return count if count >= 0 else None
