"""A tf.data pipeline as a source of batches: its random draws come again by beginning again."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from colabkit.errors import ArgumentError
from colabkit.frameworks.base import Start
from colabkit.frameworks.keras.pass_watch import StreamWatch
from colabkit.frameworks.keras.places import Route, Span, Turn
from colabkit.frameworks.keras.tfdata_inspect import (
    Depth,
    batching_of,
    depth_of,
    draws_in_each_pass,
    graphs_of,
    inspect_pipeline,
    stages_of,
)
from colabkit.frameworks.keras.tfdata_python import Generators
from colabkit.frameworks.keras.tfdata_readers import OtherReaders, begun, noting_readers
from colabkit.frameworks.keras.tfdata_tap import (
    is_in_order,
    may_be_read,
    record,
    shuffles_of,
    tapped,
)
from colabkit.frameworks.seeding import derive

_DRAWN = (
    "the tf.data pipeline was read before in this session, or twice in an epoch, and an order that"
    " it has drawn cannot come again (make it in the same cell, or pass the function that makes it)"
)
_READ_BESIDE = (
    "a callback reads the training pipeline itself, and draws orders from it that a resume cannot"
    " repeat (make a pipeline of its own for it)"
)
_ONE_SHUFFLE = (
    "the training and the validation data are parts of one pipeline that is shuffled anew for each"
    " (samples move from one to the other; .shuffle(..., reshuffle_each_iteration=False) before"
    " take and skip holds them apart)"
)
# How often each shuffle, whatever pipeline it is part of, has drawn an order in this session.
_ORDERS_DRAWN: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True, slots=True)
class _Looked:
    """A pass that was begun for a look, and is gone on with.

    Attributes:
        turn: Number of the pass.
        read: Batches of it that have been read or skipped.
        batches: The rest.
    """

    turn: int
    read: int
    batches: Iterator[Any]


class TfDataFeed:
    """A tf.data.Dataset, or a function that makes one for each epoch.

    Attributes:
        is_watched: Whether anybody asks what its batches were.
        watch: Takes down batches of the pass under way.
        record: Says what a batch is.
        readers: Who else read the pipeline, and when.

    Args:
        source: The dataset, or the function.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch, or None for a pass.
        limit: Batches of each pass that are read, or None for all.
        transform: Applied to each batch within the pipeline, or None.
        convert: Makes a batch what another backend takes, or None.
        as_keras_fit: Whether to begin, behind each pass, the iterators that Keras' own ``fit`` on
            TensorFlow makes and reads nothing of: each draws an order.
    """

    def __init__(
        self,
        source: Any,
        *,
        seed: int,
        steps_per_epoch: int | None = None,
        limit: int | None = None,
        transform: Callable[[Any], Any] | None = None,
        convert: Callable[[Any], Any] | None = None,
        as_keras_fit: bool = False,
    ) -> None:
        self._make = source if callable(source) and not is_dataset(source) else None
        self._seed = self._own_seed = seed
        self._limit = limit
        self._transform, self._convert = transform, convert
        self._dataset = self._finished(self._made_for(0) if self._make else source)
        self._findings = inspect_pipeline(self._dataset, replayed=self._make is None)
        self._generators = self._generators_of(self._dataset)
        self._generators.try_out()
        self._of_pass = self._generators  # what a function makes for a pass has others
        self._shuffles = () if self._make else tuple(shuffles_of(self._dataset))
        self._cannot_repeat = self._is_read_beside = False
        self._beside: tuple[str, ...] = ()
        self.readers = OtherReaders()
        self._due: int | None = None
        self._iterators_made = self._spares_made = 0
        self.is_watched = False
        self.watch, self.record = StreamWatch(record), record
        self._looked: _Looked | None = None
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
        # Keras makes one where it sees that a pass is over: not of a part, nor without a length.
        self._has_spares = (
            as_keras_fit
            and batches is not None
            and self.reading_has_effects
            and (limit is None or 0 <= int(source.cardinality()) <= limit)
        )

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

    def batch_sizes(self, epochs: int) -> list[int]:
        """Returns how many samples the batches have that so many epochs read, if it is known."""
        found = batching_of(self._dataset)
        return [] if found is None else found.sizes(self._route.steps_per_epoch, epochs)

    def iterator(self, start: Start) -> Iterator[Any]:
        """Returns TensorFlow's own iterator over an epoch from ``start.skip`` on.

        With ``steps_per_epoch`` it goes on beyond the epoch, into the next.
        """
        span = self._span(start)
        if self._route.steps_per_epoch is None:
            return self._gone_on(span.turn, start.skip)
        if self._live is None or span.turn != self._turn:
            self._live, self._turn = self._gone_on(span.turn, span.first + start.skip), span.turn
        self.watch.epoch_begins_at = span.first
        live: Iterator[Any] = self._live
        return live

    def _span(self, start: Start) -> Span:
        turn = start.state if isinstance(start.state, Turn) else None
        return self._route.span(start.epoch, turn)

    def _gone_on(self, turn: int, skip: int) -> Iterator[Any]:
        """Returns a pass from a place on, the one that was begun for a look if it is that."""
        looked, self._looked = self._looked, None
        if looked is None or looked.turn != turn or looked.read > skip:
            return self._begun(turn, skip)
        for _ in range(skip - looked.read):
            next(looked.batches, None)
        return looked.batches

    @property
    def drawn(self) -> int:
        """How many orders it has drawn in this session, for whomever."""
        return min((_ORDERS_DRAWN.get(each, 0) for each in self._shuffles), default=0)

    def catch_up(self, drawn: int) -> None:
        """Has it draw as many orders as it had when its first pass began."""
        # What others only began has drawn the orders of some shuffles, and not those within.
        is_known = self.drawn == drawn or self._findings.depth is Depth.BEGUN
        for number in range(self.drawn, drawn):
            self._read_as_before(number)
        self._cannot_repeat |= self.drawn > drawn or (self._has_spares and not is_known)

    def go_on_in_session(self) -> None:
        """Counts the passes of another run over the same pipeline as its own."""
        self._iterators_made = self.drawn

    def expect(self, start: Start) -> None:
        """Says which epoch is read next."""
        self._due = self._span(start).turn

    def noting_readers(self) -> contextlib.AbstractContextManager[None]:
        """Has it count what callbacks read of the pipeline meanwhile."""
        return noting_readers(self._note_reader) if self._shuffles else contextlib.nullcontext()

    def _note_reader(self, dataset: Any) -> None:
        """Counts an iterator that somebody else is about to make of the pipeline, or a part."""
        stages = {id(stage) for stage in stages_of(dataset)}
        read = [each for each in self._shuffles if id(each) in stages]
        if not read:
            return
        if self._due is not None:
            self._begin_as_before(self._due)
            self.readers.note(self._place)
        is_whole = Depth.WHOLE in {self._findings.depth, depth_of(dataset)}
        is_kept = self._findings.first_pass_is_kept or self._generators.are_any
        is_part = len(read) < len(self._shuffles)
        # What is read as training begins, each session reads again.
        self._is_read_beside |= self._due is None or is_whole or is_kept or is_part
        for each in read:
            _ORDERS_DRAWN[each] = _ORDERS_DRAWN.get(each, 0) + 1

    @property
    def _place(self) -> int:
        return self._iterators_made + self._spares_made

    def _draw_as_before(self) -> None:
        """Draws what others drew in earlier sessions after so many iterators had been made."""
        for _ in range(self.readers.missing(self._place)):
            next(begun(self._dataset), None)
            self._count_orders()

    def _count_orders(self) -> None:
        for each in self._shuffles:
            _ORDERS_DRAWN[each] = _ORDERS_DRAWN.get(each, 0) + 1

    def _begun(self, turn: int, skip: int) -> Iterator[Any]:
        if self._make is not None:
            dataset = self._finished(self._made_for(turn))
            self._of_pass.close()
            self._of_pass = self._generators_of(dataset)
            self._of_pass.begin(turn)
        elif self._route.batches is not None and skip >= self._route.batches:
            # Nobody would read of it, and only what is read draws.
            self._begin_as_before(turn + 1)
            dataset = self._dataset.take(0)
        else:
            self._begin_as_before(turn)
            self._cannot_repeat |= bool(self._shuffles) and turn < self._iterators_made
            self._generators.begin(turn)
            self._iterators_made += 1
            self._count_orders()
            dataset = self._dataset
        self.watch = StreamWatch(record, first=skip)
        # A batch more costs microseconds at each step: what is kept of one pass will do.
        is_tapped = turn == 0 and self.is_watched
        batches: Iterator[Any] = _from(dataset, skip, self.watch if is_tapped else None)
        if self._make is None:
            self._draw_as_before()
        return batches

    def again(self, start: Start, *, goes_on: bool) -> Iterator[Any] | None:
        """Returns the batches from a place on, None where the look would be a draw of orders."""
        span = self._span(start)
        if not goes_on and self._make is None:
            is_done = span.turn < self._iterators_made
            # Of a pass that draws on in its middle, a part is less than a pass.
            is_cut = self._findings.depth is Depth.WHOLE and not self._route.is_endless
            if is_done or is_cut or not may_be_read(self._dataset):
                return None
        number = span.first + start.skip
        batches = self._begun(span.turn, number)
        # It may be the pass that the run goes on with: to begin it again would draw another order.
        self._looked = _Looked(span.turn, number + 1, batches)
        return self._converted(batches)

    def _begin_as_before(self, turn: int) -> None:
        """Reads the passes before as far as it takes: each draws its own order from the seed."""
        while self._iterators_made < turn:
            self._leave_spares(self._iterators_made)
            self._read_as_before(self._iterators_made)
            self._iterators_made += 1
            self._draw_as_before()
        self._leave_spares(turn)

    def _leave_spares(self, turn: int) -> None:
        """Makes the iterators that Keras makes behind the passes before one."""
        if self._has_spares and self._route.steps_per_epoch is None:
            while self._spares_made < turn:
                self._leave_spare()
        self._draw_as_before()

    def _leave_spare(self) -> None:
        begun(self._dataset)
        self._count_orders()
        self._spares_made += 1

    def be_looked_at(self) -> None:
        """Is read of before training, to see a batch: that draws an order as well."""
        if self._shuffles:
            self._generators.begin(0)
            next(begun(self._dataset), None)
            self._count_orders()

    def end_pass(self) -> None:
        """Is called where Keras makes an iterator that it reads nothing of."""
        self._leave_spares(self._iterators_made)

    def _read_as_before(self, number: int) -> None:
        self._generators.begin(number)
        is_kept = self._findings.first_pass_is_kept and number == 0
        depth = Depth.WHOLE if is_kept else self._findings.depth
        iterator = begun(self._dataset)
        for _ in itertools.islice(iterator, None if depth is Depth.WHOLE else int(depth)):
            pass
        self._count_orders()

    @property
    def reading_has_effects(self) -> bool:
        """Whether each iterator draws an order."""
        return self._make is None and not is_in_order(self._dataset)

    def _generators_of(self, dataset: Any) -> Generators:
        graphs = (graph for stage in stages_of(dataset) for graph in graphs_of(stage))
        return Generators(graphs, self._seed)

    def close(self) -> None:
        """Gives the user's pipeline back as it was."""
        self._of_pass.close()
        self._generators.close()

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of an epoch from ``start.skip`` on."""
        size = self._route.steps_per_epoch
        left = None if size is None else size - start.skip
        return self._converted(itertools.islice(self.iterator(start), left))

    def _converted(self, batches: Iterator[Any]) -> Iterator[Any]:
        return batches if self._convert is None else map(self._convert, batches)

    def pass_on(self, end: Start) -> None:
        """Makes the iterators that the epochs would have, and have not: each draws an order."""
        if self._make is not None or not end.epoch:
            return
        last = self._span(dataclasses.replace(end, epoch=end.epoch - 1))
        self._begin_as_before(last.turn + 1)
        ends_pass = last.first + (last.count or 0) == self._route.batches
        if self._has_spares and ends_pass and not self._spares_made:
            self._leave_spare()  # of parts of a pass, Keras reads each but the last

    def reseed(self, number: int) -> None:
        """Has all draws differ from those without the number."""
        self._seed = derive(self._own_seed, "from", number)

    def state(self) -> object:
        """The count of batches says it all."""
        return None

    def reasons_beside(self, other: object) -> tuple[str, ...]:
        """Returns why neither can be repeated where another source is read in turn with it."""
        if not isinstance(other, TfDataFeed):
            return ()
        ids = {id(each) for each in other._shuffles if draws_in_each_pass(each)}
        if any(id(each) in ids for each in self._shuffles):
            self._beside = other._beside = (_ONE_SHUFFLE,)
        return self._beside

    def describe(self) -> Mapping[str, Any]:
        """The number of batches, where it is known."""
        return {"batches": self.length}

    def reasons(self) -> tuple[str, ...]:
        """What in the pipeline cannot be repeated."""
        return (
            *self._findings.reasons,
            *self._generators.reasons(),
            *((_DRAWN,) if self._cannot_repeat else ()),
            *((_READ_BESIDE,) if self._is_read_beside else ()),
            *self._beside,
        )

    def notices(self) -> tuple[str, ...]:
        """A resume runs the pipeline over what was already trained on."""
        return self._findings.notices


def is_dataset(value: object) -> bool:
    """Whether a value is a tf.data.Dataset."""
    return isinstance(value, tf.data.Dataset)


def _from(dataset: Any, skip: int, watch: StreamWatch | None) -> Any:
    dataset = dataset.skip(skip) if skip else dataset
    return begun(dataset if watch is None else tapped(dataset, watch, first=skip))


def _cardinality(dataset: Any) -> int | None:
    count = int(dataset.cardinality())
    return count if count >= 0 else None
