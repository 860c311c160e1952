"""Whether the data of a run is still what it was: records of batches, kept and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from colabkit.errors import ArgumentError, CheckpointMismatchError

_WAYS_ON = (
    "Classes numbered by a set, files in the order of a listing, a split or data made without a"
    " seed come out otherwise in each session: sort and seed them. Or pass"
    ' data_changed="accept" to go on with the data as it is now, resume="weights" to take only'
    " the weights, or resume=False to start anew beside the old checkpoints, which stay. Another"
    " part of the data, a fold, needs another folder."
)
SAMPLED_EVERY = 16
_SHOWN_MAX = 4
_OF_THE_MACHINE = ("device", "processor", "CPU threads")
_KINDS_OF_NUMBERS = ("int", "uint", "bool", "str")


@dataclasses.dataclass(frozen=True, slots=True)
class LeafRecord:
    """What is kept of one tensor or value of a batch.

    Attributes:
        name: How one would reach it: ``batch[0]``.
        form: Its type and shape.
        digest: Hash of its bytes, of blocks spread over them where they are many.
        unordered: Hash that the order of the samples does not change, "" where there is none.
    """

    name: str
    form: str
    digest: str
    unordered: str = dataclasses.field(compare=False)

    @property
    def is_discrete(self) -> bool:
        """Whether it holds whole numbers or words, which no other processor rounds otherwise."""
        return self.form.startswith(_KINDS_OF_NUMBERS)


@dataclasses.dataclass(frozen=True, slots=True)
class BatchRecord:
    """What is kept of a batch, to tell later whether another is the same."""

    leaves: tuple[LeafRecord, ...]

    def changes(self, now: BatchRecord) -> dict[str, tuple[LeafRecord | None, LeafRecord | None]]:
        """Returns what differs in another batch, by name."""
        then, other = ({leaf.name: leaf for leaf in each.leaves} for each in (self, now))
        return {
            name: (then.get(name), other.get(name))
            for name in dict.fromkeys([*then, *other])
            if then.get(name) != other.get(name)
        }


@dataclasses.dataclass(frozen=True, slots=True)
class KeptBatch:
    """A batch as a checkpoint keeps it.

    Attributes:
        record: What is kept of the batch.
        epoch: The epoch it was read in.
        reasons: Why its source could not be repeated, as far as was known.
        number: Its number in the pass, from 0; None for the last that was read.
    """

    record: BatchRecord
    epoch: int
    reasons: tuple[str, ...] = ()
    number: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        leaves = [list(dataclasses.astuple(leaf)) for leaf in self.record.leaves]
        kept = {"leaves": leaves, "epoch": self.epoch, "reasons": list(self.reasons)}
        return kept if self.number is None else {**kept, "number": self.number}

    @classmethod
    def of_state(cls, state: Mapping[str, Any] | None) -> KeptBatch | None:
        """Returns what ``state_dict`` was made of; None for None."""
        if state is None:
            return None
        leaves = tuple(LeafRecord(*leaf) for leaf in state["leaves"])
        reasons = tuple(state["reasons"])
        return cls(BatchRecord(leaves), state["epoch"], reasons, state.get("number"))


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What a source with a state of its own gave first, which it must give again.

    Attributes:
        kept: Its first batch.
        key: Seed of the pass that it began.
        source: The source's state before it.
    """

    kept: KeptBatch
    key: int
    source: Any

    def state_dict(self) -> dict[str, Any]:
        """Returns plain values, and the source's state as it is."""
        return {"kept": self.kept.state_dict(), "key": self.key, "source": self.source}

    @classmethod
    def of_state(cls, state: Mapping[str, Any] | None) -> Head | None:
        """Returns what ``state_dict`` was made of; None for None."""
        kept = None if state is None else KeptBatch.of_state(state["kept"])
        return None if kept is None or state is None else cls(kept, state["key"], state["source"])


def check_data_changed(value: object) -> None:
    """Raises ArgumentError unless ``data_changed`` is one of the two ways."""
    if value not in {"error", "accept"}:
        message = f"data_changed is {value!r}."
        raise ArgumentError(message, argument="data_changed", hint='Pass "error" or "accept".')


@dataclasses.dataclass(frozen=True, slots=True)
class Leniency:
    """What may differ without an error.

    Attributes:
        accepts: Whether the user accepts other data.
        other_libraries: Whether libraries changed, which may draw and shuffle otherwise.
        other_machine: Whether the processor changed, which may round otherwise.
    """

    accepts: bool = False
    other_libraries: bool = False
    other_machine: bool = False

    @classmethod
    def towards(cls, data_changed: str, environment: Sequence[str]) -> Leniency:
        """Returns what may differ, where sentences say what has changed of the environment."""
        machine = [said for said in environment if said.startswith(_OF_THE_MACHINE)]
        return cls(
            accepts=data_changed == "accept",
            other_libraries=len(machine) < len(environment),
            other_machine=bool(machine),
        )


def compare(
    kept: KeptBatch,
    now: BatchRecord | None,
    *,
    where: str,
    location: str,
    leniency: Leniency,
    reasons: Iterable[str] = (),
) -> str:
    """Compares a batch that was fetched again with what is kept of it.

    Args:
        kept: What is kept.
        now: What was fetched, None where the data had ended before.
        where: Which batch it is, in words.
        location: The run folder.
        leniency: What may differ.
        reasons: Why its source cannot be repeated, as far as is known now.

    Returns:
        A sentence where it differs and may, "" where it is the same.

    Raises:
        CheckpointMismatchError: It differs and must not.
    """
    then = kept.record
    changes = then.changes(now or BatchRecord(()))
    # Of a batch in which nothing was found, nothing is known.
    if not changes or not then.leaves:
        return ""
    said = f"The data is not what it was: {where} {_words(then, now, changes)}."
    expected = "; ".join(dict.fromkeys((*kept.reasons, *reasons)))
    rounds_only = leniency.other_machine and not any(
        leaf is None or leaf.is_discrete for pair in changes.values() for leaf in pair
    )
    if expected:
        return f"{said} It was not to be expected: {expected}."
    if leniency.accepts:
        return f"{said} Going on with it as it is now."
    if leniency.other_libraries or rounds_only:
        return f"{said} The machine or its libraries are not what they were either."
    differences = {name: (_shown(was), _shown(now)) for name, (was, now) in changes.items()}
    message = f"{said} The run is in {location}."
    raise CheckpointMismatchError(message, differences=differences, hint=_WAYS_ON)


def _words(
    then: BatchRecord,
    now: BatchRecord | None,
    changes: Mapping[str, tuple[LeafRecord | None, LeafRecord | None]],
) -> str:
    if now is None:
        return "is missing, the data ends before it"
    for name, (was, is_now) in changes.items():
        if was is None or is_now is None:
            return f"has {'lost' if is_now is None else 'gained'} {name}"
        if was.form != is_now.form:
            return f"has {name} of {is_now.form}, and had {was.form}"
    same = [leaf.name for leaf in then.leaves if leaf.name not in changes]
    pairs = [(was, is_now) for was, is_now in changes.values() if was and is_now]
    unordered = all(was.unordered and was.unordered == is_now.unordered for was, is_now in pairs)
    if unordered and not same:
        return "has the same samples in another order"
    if not same:
        return "holds other samples"
    changed = ", ".join(list(changes)[:_SHOWN_MAX])
    return f"has another {changed}, and the same {', '.join(same[:_SHOWN_MAX])}"


def _shown(leaf: LeafRecord | None) -> str | None:
    return None if leaf is None else f"{leaf.form} {leaf.digest}"


class Watch(Protocol):
    """What takes down batches of a pass, for a checkpoint to keep."""

    record: Callable[[Any], BatchRecord]
    """Says at once what a batch is."""

    def see(self, batch: Any) -> None:
        """Takes down the batch that is handed out next."""
        ...

    def kept(self, epoch: int, batches_done: int, reasons: tuple[str, ...]) -> KeptBatch | None:
        """Returns one that was trained, None where that cannot be told.

        Args:
            epoch: The epoch under way.
            batches_done: Batches trained of the pass.
            reasons: Why its source cannot be repeated.
        """
        ...


class BatchWatch:
    """Knows what the newest batch of a pass was, before its step could change it in place.

    Args:
        note: Takes down a batch in a microsecond, and tells later what it was, or None where
            it has been changed.
        record: Says at once what a batch is.
    """

    def __init__(
        self,
        note: Callable[[Any], Callable[[], BatchRecord | None]],
        record: Callable[[Any], BatchRecord],
    ) -> None:
        self.record = record
        self._note = note
        self._newest: Callable[[], BatchRecord | None] = lambda: None
        self._trial: Callable[[], BatchRecord | None] | None = None
        self._left_alone = False

    def see(self, batch: Any) -> None:
        """Takes down the batch that is handed out next."""
        if self._left_alone:
            self._newest = self._note(batch)
        else:
            self._see_carefully(batch)

    def _see_carefully(self, batch: Any) -> None:
        """Until a step has left its batch alone, each is recorded before it is handed out."""
        if self._trial is not None and self._trial() is not None:
            self._left_alone = True
            self._newest = self._note(batch)
            return
        made = self.record(batch)
        self._newest = lambda: made
        self._trial = self._note(batch)

    def kept(
        self,
        epoch: int,
        batches_done: int,  # noqa: ARG002  # it is the newest
        reasons: tuple[str, ...],
    ) -> KeptBatch | None:
        """Returns what the newest batch was, None where that cannot be told any more."""
        made = self._newest()
        self._newest = lambda: made
        if made is None:
            self._left_alone = False
            return None
        return KeptBatch(made, epoch, reasons)


class SampledWatch:
    """Records the first batch of a pass and every so many after it, before they are handed out.

    Where nothing tells whether a batch has been changed in place, to record each would cost
    every step; and where batches are fetched ahead, the newest is not the one trained last.

    Attributes:
        first: What the first batch of the pass is, None where it was not handed out.

    Args:
        record: Says what a batch is.
        first: Number of the first batch in its pass.
    """

    def __init__(self, record: Callable[[Any], BatchRecord], *, first: int = 0) -> None:
        self.record = record
        self.first: BatchRecord | None = None
        self._number = first
        self._due = first
        self._seen: dict[int, BatchRecord] = {}

    def see(self, batch: Any) -> None:
        """Takes down the batch that is handed out next."""
        if self._number == self._due:
            self.take(self._number, self.record(batch))
            self._due += SAMPLED_EVERY
        self._number += 1

    def take(self, number: int, record: BatchRecord) -> None:
        """Takes down what the batch of a number is."""
        self._seen[number] = record
        if number == 0:
            self.first = record

    def kept(self, epoch: int, batches_done: int, reasons: tuple[str, ...]) -> KeptBatch | None:
        """Returns the newest that was trained."""
        trained = [number for number in list(self._seen) if number < batches_done]
        if not trained:
            return None
        newest = max(trained)
        for number in trained:
            if number < newest:
                del self._seen[number]
        return KeptBatch(self._seen[newest], epoch, reasons, newest)
