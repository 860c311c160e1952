"""The processes that write a run's checkpoints together, seen by the one that publishes them.

Nothing is lost where that fails: the save is taken again, and that process writes all of it, as it
does for the rest of the session.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from colabkit.checkpoint.manifest import Manifest, Name, ShardEntry, TensorEntry, fault_among
from colabkit.checkpoint.parts import IN_PIECES, Deal, Part, PartCall, Posts, may_be_shared
from colabkit.checkpoint.snapshot import SnapshotTensor
from colabkit.checkpoint.tensors import TensorSpec

_logger = logging.getLogger(__name__)
# Less is written by one process sooner than it is shared out.
WORTH_BYTES = 32 << 20
# As long as processes wait for each other elsewhere; a dead one is noticed at once.
DEADLINE_S = 1800.0
# What a process has posted before it said that it fails, or before this one ends, arrives by then.
_GRACE_S, _LAST_S = 1.0, 60.0
_LOOK_MAX_S = 0.05
# A network file system may keep what it knows of a folder for a minute.
_SEEN_S, _SEEN_LOOK_S = 120.0, 1.0
_DOUBTS_MAX = 3
# Once a network may fail, and a disk be full until something is removed.
_FAILURES_MAX = 2
Lacking = Callable[[Mapping[str, ShardEntry]], list[str]]


class PartMissingError(Exception):
    """A save that lacks a part, and cannot be published."""


class Company:
    """Calls the others to a save, and takes what they have written of it.

    A first save that they are called to is written whole by this process: it only shows whether all
    hold the same. The next ones are shared out, until something else is to be saved.

    Args:
        posts: What the processes leave for each other.
        clock: Seconds that only grow.
    """

    def __init__(self, posts: Posts, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._posts = posts
        self._clock = clock
        self._agreed = ""
        self._is_worth = False
        self._doubts = self._failures = 0
        self._is_apart = False
        self._ending = threading.Event()
        self._called: PartCall | None = None

    @property
    def rank(self) -> int:
        """Number of the process that publishes."""
        return self._posts.rank

    # On the main thread.

    def call(
        self,
        next_name: Callable[[], Name],
        previous: Name | None = None,  # noqa: ARG002  # for pieces, which are never the others'
    ) -> PartCall | None:
        """Returns what the others are told of the snapshot taken next; None where it is whole."""
        is_wanted = self._is_worth and not self._is_apart
        self._called = PartCall(next_name(), self._agreed) if is_wanted else None
        return self._called

    def call_nobody(self) -> None:
        """Has the snapshot taken next be whole; one that was called to may have come to nothing."""
        self._called = None

    def deal(
        self, tensors: Sequence[SnapshotTensor], is_guarded: Callable[[TensorSpec], bool]
    ) -> SharedSave | None:
        """Shares a snapshot out; None where this process writes it alone."""
        called, self._called = self._called, None
        nbytes = sum(each.spec.nbytes for each in tensors if may_be_shared(each, is_guarded))
        self._is_worth = nbytes >= WORTH_BYTES
        if called is None:
            return None
        deal = Deal.of(tensors, is_guarded=is_guarded, size=self._posts.size)
        return SharedSave(self, called, deal)

    def end(self) -> None:
        """Has what is waited for come soon, or never."""
        self._ending.set()

    # On the saver's thread.

    def agree(self, forms: str) -> None:
        """Takes what has these forms as held alike by all."""
        self._agreed, self._doubts = forms, 0

    def doubt(self, why: str, *, is_final: bool) -> None:
        """Takes a save as one that was not to be shared out; several in a row as all."""
        self._doubts += 1
        if is_final or self._doubts == _DOUBTS_MAX:
            self.part(why, level=logging.INFO)

    def note_parts(self, why: str) -> None:
        """Takes why parts cannot be published, "" where they can; leaves the others out in time."""
        self._failures = self._failures + 1 if why else 0
        if self._failures == _FAILURES_MAX:
            self.part(why)

    def part(self, why: str, *, level: int = logging.WARNING) -> None:
        """Leaves the others out from now on."""
        self._is_apart = True
        why = why.rstrip(".")
        _logger.log(level, "Process %d writes checkpoints alone from now on: %s.", self.rank, why)

    def parts_of(self, name: Name) -> dict[int, Part]:
        """Waits for what the others have to say of a save; returns it by process.

        Raises:
            PartMissingError: One of them will say nothing, or has not in time.
        """
        found: dict[int, Part] = {}
        missing = [rank for rank in range(self._posts.size) if rank != self._posts.rank]
        until_s, look_s, why = self._clock() + DEADLINE_S, 0.001, "it does not answer"
        while True:
            # Before: what it has left by now may be the last it does.
            lost = self._posts.lost()
            for rank in tuple(missing):
                if (text := self._posts.posted(str(name), rank)) is not None:
                    found[rank] = Part.from_text(text)
                    missing.remove(rank)
            if not missing:
                return found
            if lost or self._ending.is_set():
                until_s = min(until_s, self._clock() + (_GRACE_S if lost else _LAST_S))
                why = lost or why
            if self._clock() > until_s:
                message = f"the part of process {missing[0]} has not come: {why}"
                raise PartMissingError(message)
            time.sleep(look_s)
            look_s = min(2 * look_s, _LOOK_MAX_S)

    def unseen(self, part: Part, lacking: Lacking) -> list[str]:
        """Waits until this process sees the files of another; returns those that it does not."""
        until_s = self._clock() + _SEEN_S
        while (missing := lacking(part.shards)) and self._clock() < until_s:
            time.sleep(_SEEN_LOOK_S)
        return missing


class SharedSave:
    """One save that the others were called to.

    Attributes:
        name: The checkpoint's name, which they know.
        own: The tensors that this process writes.
        is_written_by_all: Whether the others write theirs, rather than only compare them.
    """

    def __init__(self, company: Company, called: PartCall, deal: Deal) -> None:
        self._company, self._deal = company, deal
        self.name = called.name
        self.is_written_by_all = bool(deal.forms) and deal.forms == called.agreed
        self.own = deal.left_to(company.rank) if self.is_written_by_all else list(deal.tensors)
        self._heard: dict[int, Part] | PartMissingError | None = None

    def parts(self, lacking: Lacking) -> list[Part]:
        """Waits for what the others have written; none where they only compare.

        Args:
            lacking: Says which of some files are not where this process writes.

        Raises:
            PartMissingError: Something of it is missing, or is not what they were called for.
        """
        if not self.is_written_by_all:
            return []
        parts = self._await()
        for rank, part in parts.items():
            if part.is_torn:
                message = f"the snapshot of process {rank} was torn"
                raise PartMissingError(message)
            why = self._against(rank, part)
            if not why and (missing := self._company.unseen(part, lacking)):
                why = f"what process {rank} has written is not there: {missing[0]}"
            if why:
                self._company.note_parts(why)
                raise PartMissingError(why)
        self._company.note_parts("")
        return [parts[rank] for rank in sorted(parts)]

    def _await(self) -> dict[int, Part]:
        """Returns what the others have to say of it, once waited for."""
        if self._heard is None:
            try:
                self._heard = self._company.parts_of(self.name)
            except PartMissingError as error:
                self._heard = error
        if isinstance(self._heard, PartMissingError):
            raise self._heard
        return self._heard

    def _against(self, rank: int, part: Part) -> str:
        """Returns what is wrong with a part, "" for nothing."""
        if part.problem:
            return f"process {rank}: {part.problem}"
        asked = {each.place: each.spec for each in self._deal.share(rank)}
        held = {(each.section, each.key): each.spec for each in part.tensors}
        if part.forms != self._deal.forms or asked != held:
            return f"process {rank} holds other tensors"
        return ""

    def settle(self, published: Manifest | None) -> list[str]:
        """Waits until the others are done with it, whatever came of it; raises nothing.

        Returns:
            Files of theirs that no checkpoint names.
        """
        try:
            parts = self._await()
        except PartMissingError as error:
            self._company.part(str(error))
            return []
        if published is not None and not self.is_written_by_all:
            self._compare(parts, published)
        elif published is not None:
            return []
        # A part may refer to files of earlier checkpoints.
        every = (shard for part in parts.values() for shard in part.shards)
        return [shard for shard in every if shard.endswith(f"-{self.name}.safetensors")]

    def _compare(self, parts: dict[int, Part], published: Manifest) -> None:
        known = {(e.section, e.key): e.hash for e in published.tensors}
        for rank, part in parts.items():
            if part.is_torn:
                return  # the next save shows it
            if why := self._against(rank, part):
                # It may be on another machine, or this one's snapshot of an earlier moment.
                self._company.doubt(why, is_final=bool(part.problem))
                return
            if any(known.get((e.section, e.key)) != e.hash for e in part.tensors):
                self._company.part(f"process {rank} holds other values")
                return
        self._company.agree(self._deal.forms)


class PieceCompany(Company):
    """The processes each of which holds pieces of one run's tensors, and writes them itself.

    What each holds whole is this one's to write.
    """

    def call(self, next_name: Callable[[], Name], previous: Name | None = None) -> PartCall | None:
        """Returns what the others are told; None where all of it is to be put together here.

        Args:
            next_name: Gives the name of the checkpoint.
            previous: The checkpoint whose files may be referred to.
        """
        name = None if self._is_apart else next_name()
        self._called = PartCall(name, IN_PIECES, previous) if name is not None else None
        return self._called

    def deal(
        self,
        tensors: Sequence[SnapshotTensor],
        is_guarded: Callable[[TensorSpec], bool],  # noqa: ARG002  # whoever changes them
    ) -> SharedSave | None:
        """Returns what is awaited of the others; None where this process writes it alone."""
        called, self._called = self._called, None
        return PieceSave(self, called, tensors) if called is not None else None


class PieceSave(SharedSave):
    """One save in which each writes its pieces."""

    def __init__(
        self, company: Company, called: PartCall, tensors: Sequence[SnapshotTensor]
    ) -> None:
        super().__init__(company, called, Deal(tensors, {}, IN_PIECES))

    def parts(self, lacking: Lacking) -> list[Part]:
        """Waits for what the others have written; with that, each tensor is whole.

        Args:
            lacking: Says which of some files are not where this process writes.

        Raises:
            PartMissingError: Something of it is missing.
        """
        parts = super().parts(lacking)
        own = [TensorEntry(*t.place, t.spec, t.hash, "its own file", t.box) for t in self.own]
        if why := fault_among([*own, *(each for part in parts for each in part.tensors)]):
            self._company.part(why)
            raise PartMissingError(why)
        return parts

    def _against(self, rank: int, part: Part) -> str:
        return f"process {rank}: {part.problem}" if part.problem else ""
