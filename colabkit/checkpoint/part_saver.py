"""The saver of a process that writes parts of checkpoints, which another one publishes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from colabkit.checkpoint.info import Draft
from colabkit.checkpoint.lease import Lease
from colabkit.checkpoint.manifest import TensorEntry
from colabkit.checkpoint.parts import IN_PIECES, Deal, Part, PartCall, PartPlace, Posts
from colabkit.checkpoint.saver import Job, Saver
from colabkit.checkpoint.snapshot import SnapshotTensor
from colabkit.checkpoint.store import CheckpointStore
from colabkit.checkpoint.tensors import TensorBackend, TensorSpec
from colabkit.errors import StorageError
from colabkit.storage import volume_at

# The store of PyTorch's processes takes 8 MiB at a time, and ends the connection otherwise.
_TEXT_MAX = 4 << 20


class PartSaver(Saver):
    """Copies, hashes and writes this process's share, and posts what has come of it.

    Args:
        store: Where the checkpoints are written.
        backend: The framework's tensors.
        posts: What the processes leave for each other.
    """

    def __init__(self, store: CheckpointStore, backend: TensorBackend, posts: Posts) -> None:
        self._posts = posts
        self._call: PartCall | None = None
        self._part: Part | None = None
        self._forms = ""
        super().__init__(store, backend, lease=Lease(store.volume), attempt=0)

    def begin(self, call: PartCall) -> bool:
        """Takes what the next snapshot is for; returns whether it can be taken."""
        if self.is_busy:
            decline(self._posts, call, "it still writes its part of the save before")
            return False
        self._call, self._part, self._forms = call, None, ""
        return True

    def _own(
        self, tensors: list[SnapshotTensor], is_guarded: Callable[[TensorSpec], bool]
    ) -> list[SnapshotTensor]:
        assert self._call is not None  # noqa: S101  # begun before a snapshot is offered
        if self._call.agreed == IN_PIECES:
            self._forms = IN_PIECES
            return [each for each in tensors if each.box is not None]
        deal = Deal.of(tensors, is_guarded=is_guarded, size=self._posts.size)
        self._forms = deal.forms
        return deal.share(self._posts.rank)

    # On the saver's own thread.

    def _commit(self, job: Job, noted: Any) -> tuple[bool, int]:  # noqa: ARG002  # the other's
        assert self._call is not None  # noqa: S101  # begun before a snapshot is offered
        if self._forms == self._call.agreed:
            draft = Draft(job.facts, job.tensors, job.skeletons, job.weights)
            entries, shards = self._store.write_part(
                self._call.name, draft, rank=self._posts.rank, previous=self._call.previous
            )
        else:
            entries, shards = [TensorEntry(*t.place, t.spec, t.hash, "") for t in job.tensors], {}
        self._part = Part(self._forms, tuple(entries), shards, job.facts.is_finite)
        return job.facts.is_finite, sum(each.size for each in shards.values())

    def _prune(self) -> None:
        """Says what has come of it, once the next snapshot may be taken."""
        assert self._call is not None  # noqa: S101  # as above
        error = self._failure or self._status.error
        problem = f"{type(error).__name__}: {error}" if error is not None else ""
        part = self._part or Part(self._forms, problem=problem, is_torn=not problem)
        try:
            text = part.to_text()
            if len(text) > _TEXT_MAX:
                problem = "it holds too many tensors to tell of"
                text = Part(problem=problem, shards=part.shards).to_text()
            self._posts.post(str(self._call.name), text)
        except BaseException as failure:  # noqa: BLE001  # the thread is needed for the next
            self._failure = failure


def decline(posts: Posts, call: PartCall, why: str) -> None:
    """Says that this process writes no part."""
    posts.post(str(call.name), Part(problem=why).to_text())


def store_of_parts(path: str | Path, place: PartPlace) -> CheckpointStore:
    """Returns where a process writes its parts of checkpoints that another one publishes.

    Args:
        path: The run folder, as this process names it.
        place: What the other one says of the place.

    Raises:
        StorageError: It is not the folder that this process finds under its path.
    """
    where = place.where or path
    volume = volume_at(where)
    if not Lease(volume).is_of(place.generation, place.owner):
        message = f"{where} is not the folder that process 0 writes to."
        raise StorageError(message, path=where, operation="write")
    return CheckpointStore(volume)
