"""What is kept of a batch, to tell later whether another is the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

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
