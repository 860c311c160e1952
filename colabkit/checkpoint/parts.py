"""Saves that several processes write together: who writes what, and what they tell each other.

Each tensor that all of them hold alike is written by one of them. Whose it is follows from the
forms of all such tensors, so that each process finds it out alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from colabkit.checkpoint.manifest import Name, ShardEntry, TensorEntry
from colabkit.checkpoint.snapshot import SnapshotTensor
from colabkit.checkpoint.tensors import TensorSpec
from colabkit.storage import hash_of

# A smaller tensor costs more to tell of than to write.
LEAST_BYTES = 64 << 10
# In place of what all hold alike: each process writes what it alone holds.
IN_PIECES = "in pieces"


@runtime_checkable
class Posts(Protocol):
    """What processes leave for each other without waiting; safe from any thread."""

    rank: int
    size: int

    def post(self, name: str, content: str) -> None:
        """Leaves what this process has to say of a save."""
        ...

    def posted(self, name: str, rank: int) -> str | None:
        """Returns what a process has left, None where it has not yet."""
        ...

    def lost(self) -> str:
        """Returns why one of the processes may leave nothing any more, "" while all live."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class PartCall:
    """What the process that publishes a checkpoint says to those that write parts of it.

    Attributes:
        name: The checkpoint's name.
        agreed: Digest of the forms of what all were found to hold alike; "" before they were.
        previous: The checkpoint whose files may be referred to, None where there is none.
    """

    name: Name
    agreed: str
    previous: Name | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class PartPlace:
    """Where parts may be written, if the processes that are to write them find it.

    Attributes:
        where: The folder, "" for the run folder by each one's own name.
        generation: That of the session whose it is.
        owner: Who holds its lease.
    """

    where: str
    generation: int
    owner: str


@dataclasses.dataclass(frozen=True, slots=True)
class Deal:
    """Who writes what of one snapshot.

    Attributes:
        tensors: All of it, in the order of their files.
        owners: By the place of what may be shared out, the process that writes it.
        forms: Digest of the names and forms of that; "" where there is none.
    """

    tensors: Sequence[SnapshotTensor]
    owners: Mapping[tuple[str, str], int]
    forms: str

    @classmethod
    def of(
        cls,
        tensors: Sequence[SnapshotTensor],
        *,
        is_guarded: Callable[[TensorSpec], bool],
        size: int,
    ) -> Deal:
        """Shares out what an optimizer trains: the largest first, to whoever has least.

        Args:
            tensors: All of a snapshot, in the order of their files.
            is_guarded: Which of them only an optimizer's step changes, in every process alike.
            size: Number of processes.
        """
        common = [each for each in tensors if may_be_shared(each, is_guarded)]
        loads, owners = [0] * size, dict[tuple[str, str], int]()
        for each in sorted(common, key=lambda t: (-t.spec.nbytes, t.place)):
            owners[each.place] = least = loads.index(min(loads))
            loads[least] += each.spec.nbytes
        forms = [[*each.place, each.spec.dtype, each.spec.shape] for each in common]
        digest = hash_of(json.dumps([size, forms]).encode()) if common else ""
        return cls(tensors, owners, digest)

    def share(self, rank: int) -> list[SnapshotTensor]:
        """Returns what a process writes of that."""
        return [each for each in self.tensors if self.owners.get(each.place) == rank]

    def left_to(self, rank: int) -> list[SnapshotTensor]:
        """Returns what a process writes that publishes the checkpoint: its share, and the rest."""
        return [each for each in self.tensors if self.owners.get(each.place, rank) == rank]


def may_be_shared(tensor: SnapshotTensor, is_guarded: Callable[[TensorSpec], bool]) -> bool:
    """Whether all processes hold a tensor alike, and it is large enough to be shared out."""
    is_plain = not (tensor.is_private or tensor.is_array or tensor.members)
    return is_plain and tensor.spec.nbytes >= LEAST_BYTES and is_guarded(tensor.spec)


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What a process has to say of its part of a save.

    Attributes:
        forms: See ``Deal``.
        tensors: What it holds of its share; in the file "" what it has not written.
        shards: Its files, durable by now.
        is_finite: Whether no trained weight of its share is NaN or infinite.
        problem: Why it has written nothing, "" where it has done as it was asked.
        is_torn: Whether its snapshot was torn, as that of the whole then is.
    """

    forms: str = ""
    tensors: tuple[TensorEntry, ...] = ()
    shards: Mapping[str, ShardEntry] = dataclasses.field(default_factory=dict)
    is_finite: bool = True
    problem: str = ""
    is_torn: bool = False

    def to_text(self) -> str:
        """Returns it as it is posted."""
        return json.dumps(
            {
                "forms": self.forms,
                "tensors": [each.row() for each in self.tensors],
                "shards": {name: [s.size, s.hash] for name, s in self.shards.items()},
                "is_finite": self.is_finite,
                "problem": self.problem,
                "is_torn": self.is_torn,
            }
        )

    @classmethod
    def from_text(cls, text: str) -> Part:
        """Returns what ``to_text`` wrote."""
        content: dict[str, Any] = json.loads(text)
        content["tensors"] = tuple(TensorEntry.of_row(row) for row in content["tensors"])
        content["shards"] = {name: ShardEntry(*s) for name, s in content["shards"].items()}
        return cls(**content)
