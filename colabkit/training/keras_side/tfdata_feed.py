"""A tf.data pipeline as a source of batches: its random draws come again by beginning again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from colabkit.errors import ArgumentError
from colabkit.training.feed import Start
from colabkit.training.keras_side.tfdata_look import look_into
from colabkit.training.seeding import derive


class TfDataFeed:
    """A tf.data.Dataset, or a function that makes one for each epoch.

    Args:
        source: The dataset, or the function.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch, or None for a pass.
        transform: Applied to each batch within the pipeline, or None.
    """

    def __init__(
        self,
        source: Any,
        *,
        seed: int,
        steps_per_epoch: int | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self._make = source if callable(source) and not is_dataset(source) else None
        self._seed = seed
        self._steps_per_epoch = steps_per_epoch
        self._transform = transform
        self._dataset = self._finished(self._made_for(0) if self._make else source)
        self._look = look_into(self._dataset, replayed=self._make is None)
        self._iterators_made = 0
        self._live: Any = None
        self.length = steps_per_epoch or _cardinality(self._dataset)
        if self.length is None and self._dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            message = "data is a tf.data pipeline without an end."
            hint = "Pass steps_per_epoch, or leave its .repeat() out."
            raise ArgumentError(message, argument="steps_per_epoch", hint=hint)

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
        return dataset.repeat() if self._steps_per_epoch else dataset

    def iterator(self, start: Start) -> Iterator[Any]:
        """Returns TensorFlow's own iterator over an epoch from ``start.skip`` on."""
        if self._steps_per_epoch:
            return self._continued(start)
        if self._make is not None:
            made: Iterator[Any] = _from(self._finished(self._made_for(start.epoch)), start.skip)
            return made
        self._begin_as_before(start.epoch)
        self._iterators_made += 1
        begun: Iterator[Any] = _from(self._dataset, start.skip)
        return begun

    def _continued(self, start: Start) -> Iterator[Any]:
        if self._live is None:
            done = start.epoch * (self._steps_per_epoch or 0) + start.skip
            self._live = _from(self._dataset, done)
        live: Iterator[Any] = self._live
        return live

    def _begin_as_before(self, epoch: int) -> None:
        """Makes the iterators of the epochs before: each draws its own order from the seed."""
        while self._iterators_made < epoch:
            iterator = iter(self._dataset)
            if self._look.first_pass_is_kept and self._iterators_made == 0:
                for _ in iterator:
                    pass
            self._iterators_made += 1

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of an epoch from ``start.skip`` on."""
        iterator = self.iterator(start)
        if self._steps_per_epoch:
            for _ in range(self._steps_per_epoch - start.skip):
                yield next(iterator)
            return
        yield from iterator

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
