"""The saver: one thread that brings snapshots to disk while training goes on."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from colabkit.checkpoint.company import Company, PartMissingError, SharedSave
from colabkit.checkpoint.finite import can_go_on, is_moment
from colabkit.checkpoint.info import Draft
from colabkit.checkpoint.lease import Lease
from colabkit.checkpoint.manifest import Manifest, Name, SaveFacts
from colabkit.checkpoint.policy import SaveTimings
from colabkit.checkpoint.snapshot import (
    LeafFinder,
    Mode,
    Section,
    SnapshotTensor,
    StagingBuffer,
    choose_mode,
    copy_tensors,
    hash_copies,
    parted,
    unchanged_counts_after,
)
from colabkit.checkpoint.status import FoundSave, SaveState, SaveStatus
from colabkit.checkpoint.store import CheckpointStore
from colabkit.checkpoint.tensors import TensorBackend, TensorSpec
from colabkit.checkpoint.uploader import Uploader
from colabkit.errors import CheckpointWriteError
from colabkit.storage import Bytes

_logger = logging.getLogger(__name__)
_UnchangedCounts = dict[tuple[str, str], tuple[str, int]]


@dataclasses.dataclass(slots=True)
class Job:
    """One save, from its snapshot on."""

    tensors: list[SnapshotTensor]
    skeletons: dict[str, Any]
    weights: tuple[str, ...]
    moments: Mapping[str, str]
    facts: SaveFacts
    is_trained: Callable[[str, TensorSpec], bool]
    noted: dict[str, Mapping[str, Callable[[], str | None]]]
    wait_at_once: Callable[[], None]
    still_valid: Callable[[Mapping[int, Bytes]], bool]
    began_s: float
    stall_s: float
    shared: SharedSave | None


class Saver:
    """Copies, hashes and writes snapshots; all public methods belong to the main thread.

    Args:
        store: Where checkpoints are written: the volume, or a staging area before a slow one.
        backend: The framework's tensors.
        lease: This session's claim on the run folder.
        attempt: The attempt the checkpoints belong to.
        uploader: Brings what is in the staging area to the volume; None without a staging area.
        trusted: Checkpoints in the store already known to be whole.
        found: What the session goes on from.
        has_swept: Whether nothing lies there that killed saves have left, or that is not for it to
            remove; else that goes behind the first checkpoint.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        store: CheckpointStore,
        backend: TensorBackend,
        *,
        lease: Lease,
        attempt: int,
        uploader: Uploader | None = None,
        trusted: Sequence[Manifest] = (),
        found: FoundSave | None = None,
        has_swept: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._has_swept = has_swept
        self.uploader = uploader
        self._backend = backend
        self._lease = lease
        self._attempt = attempt
        self._clock = clock
        self._company: Company | None = None
        self._buffer = StagingBuffer(backend)
        self._finder = LeafFinder(backend)
        self._trusted = {str(manifest.name) for manifest in trusted}
        self._previous: Manifest | None = max(trusted, key=lambda m: m.name, default=None)
        self._sequence = 0
        self._unchanged: _UnchangedCounts = {}
        self._all_at_once = False
        known = self._previous
        is_known = known is not None and known.facts.is_finite
        finite_step = known.facts.step if known and is_known else None
        self._status = SaveStatus(finite_step=finite_step, found=found)
        self._committed_s = clock()
        self._failure: BaseException | None = None
        self._job: Job | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self._tidying = False
        self._copied = threading.Event()
        self._copied.set()
        self._thread = threading.Thread(target=self._work, name="colabkit-saver", daemon=True)
        self._thread.start()

    def share_with(self, company: Company) -> None:
        """Has other processes write parts of what is saved from now on."""
        self._company = company

    def next_name(self) -> Name:
        """Returns the name of the next checkpoint, which no other will have."""
        self._sequence += 1
        return Name(self._attempt, self._lease.generation, self._sequence, self._lease.owner)

    @property
    def newest(self) -> Manifest | None:
        """The newest checkpoint that is known to be whole in its store."""
        return self._previous

    @property
    def copying(self) -> bool:
        """Whether the snapshot under way still needs the tensors unchanged."""
        return not self._copied.is_set()

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way, so that another would not be taken."""
        return self._job is not None

    def barrier(self) -> None:
        """Waits until the snapshot under way no longer needs the tensors."""
        began_s = self._clock()
        self._copied.wait()
        job = self._job
        if job is not None:
            job.stall_s += self._clock() - began_s

    def offer(
        self,
        sections: Sequence[Section],
        facts: SaveFacts,
        *,
        is_guarded: Callable[[TensorSpec], bool],
        still_valid: Callable[[Mapping[int, Bytes]], bool] = lambda _: True,
    ) -> bool:
        """Takes a snapshot unless one is still under way.

        Args:
            sections: The state, by reference.
            facts: What the checkpoint is.
            is_guarded: Which tensors only an optimizer's step changes; it calls ``barrier``.
            still_valid: Asked after the copy, with the copies by the tensors' addresses: whether
                those did not change meanwhile.

        Returns:
            False when the last save is still under way; nothing was done then.

        Raises:
            StateError: Something in the state cannot be stored.
        """
        if self._job is not None:
            return False
        began_s = self._clock()
        skeletons, tensors = self._finder.find(sections)
        shared = self._company.deal(tensors, is_guarded) if self._company is not None else None
        tensors = self._own(tensors, is_guarded) if shared is None else shared.own
        # The best cannot be taken again: nothing of it is left to a tensor's staying as it was.
        self._place(tensors, is_guarded, {} if facts.is_best else self._unchanged)
        at_once = [each for each in tensors if each.mode is Mode.AT_ONCE]
        wait = copy_tensors(at_once, self._backend)
        wait()
        weights = tuple(section.name for section in sections if section.weights)
        trained = {section.name: section.trained for section in sections}
        job = Job(
            tensors=tensors,
            skeletons=skeletons,
            weights=weights,
            moments={each.name: each.moments for each in sections if each.moments},
            facts=facts,
            is_trained=lambda name, spec: is_guarded(spec) or spec.address in trained[name],
            noted={section.name: section.noted for section in sections if section.noted},
            wait_at_once=wait,
            still_valid=still_valid,
            began_s=began_s,
            stall_s=0.0,
            shared=shared,
        )
        meanwhile = [each for each in tensors if each.mode is not Mode.AT_ONCE]
        if self._backend.overlaps:
            job.wait_at_once = copy_tensors(meanwhile, self._backend)
        self._status = dataclasses.replace(self._status, wants_retake=False)
        job.stall_s = self._clock() - began_s
        with self._wake:
            # In this order: an interrupt in between must leave nobody waiting for a copy.
            self._wake.notify_all()
            self._job = job
            if meanwhile:
                self._copied.clear()
        return True

    def _own(
        self,
        tensors: list[SnapshotTensor],
        is_guarded: Callable[[TensorSpec], bool],  # noqa: ARG002  # for those that write parts
    ) -> list[SnapshotTensor]:
        """Returns what of a snapshot this process writes: all."""
        return tensors

    def _place(
        self,
        tensors: Sequence[SnapshotTensor],
        is_guarded: Callable[[TensorSpec], bool],
        unchanged: _UnchangedCounts,
    ) -> None:
        """Says of each tensor when it is copied, and where to."""
        for tensor, view in zip(tensors, self._buffer.views(tensors), strict=True):
            tensor.view = view
            tensor.mode = choose_mode(
                tensor,
                is_guarded=is_guarded,
                unchanged_count=unchanged.get(tensor.place, ("", 0))[1],
                all_at_once=self._all_at_once,
            )

    def status(self) -> SaveStatus:
        """Returns how far the newest save has come."""
        status = dataclasses.replace(self._status, age_s=self._clock() - self._committed_s)
        if self.uploader is None:
            return status
        return dataclasses.replace(status, upload=self.uploader.status())

    def raise_if_failed(self) -> None:
        """Raises on this thread what the saver's thread cannot go on from.

        Raises:
            LeaseLostError: Another session has taken the run folder over.
        """
        if failure := self._failure or (self.uploader.failure if self.uploader else None):
            raise failure

    def flush(self, timeout_s: float | None = None) -> None:
        """Waits until the save under way is committed, in the staging area where there is one.

        Raises:
            CheckpointWriteError: It could not be written.
            LeaseLostError: Another session has taken the run folder over.
        """
        with self._wake:
            self._wake.wait_for(lambda: self._job is None, timeout_s)
        self.raise_if_failed()
        if (error := self._status.error) is not None:
            message = f"The last checkpoint could not be written: {error}"
            newest, location = self._previous, self._store.volume.location
            step = 0 if newest is None else newest.facts.step
            whole = f"The newest whole one in {location} is that of step {step:,}: a run goes on"
            hint = "" if newest is None else f"{whole} from there. "
            hint += "What the model learned since is in this session alone: save its weights first."
            raise CheckpointWriteError(message, path=location, step=step, hint=hint) from error

    def settle(self) -> None:
        """Waits until nothing is left to do, the removal of old checkpoints included."""
        with self._wake:
            self._wake.wait_for(lambda: self._job is None and not self._tidying)

    def close(self) -> None:
        """Finishes the save under way and stops the thread."""
        try:
            with self._wake:
                self._stopping = True
                self._wake.notify_all()
            if self._company is not None:
                self._company.end()
            self._thread.join()
        finally:
            if self.uploader is not None:
                self.uploader.close()

    # On the saver's own thread.

    def _work(self) -> None:
        while self._has_job():
            # In a call of its own, so that nothing holds a snapshot when others hear of its end.
            self._finish(self._taken())
            with self._wake:
                self._job, self._tidying = None, True
                self._wake.notify_all()
            self._prune()

    def _finish(self, job: Job) -> None:
        """Makes a snapshot a checkpoint; raises nothing."""
        before = self._previous
        try:
            self._save(job)
        except OSError as error:
            self._status = dataclasses.replace(self._status, error=error)
        except PartMissingError as error:
            _logger.info("A save is taken again: %s", error)
            self._status = dataclasses.replace(self._status, wants_retake=True)
        except BaseException as error:  # noqa: BLE001  # raised on the main thread
            self._failure = error
        finally:
            self._copied.set()
            self._settle(job, None if self._previous is before else self._previous)

    def _settle(self, job: Job, published: Manifest | None) -> None:
        """Waits until all are done with a save, so that they can be called to the next."""
        if job.shared is None:
            return
        try:
            self._store.remove(job.shared.settle(published))
        except BaseException as error:  # noqa: BLE001  # raised on the main thread
            self._failure = error

    def _has_job(self) -> bool:
        with self._wake:
            self._tidying = False
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._job is not None or self._stopping)
            return self._job is not None

    def _taken(self) -> Job:
        assert self._job is not None  # noqa: S101  # asked right before
        return self._job

    def _prune(self) -> None:
        """Removes what is superfluous; nobody waits for it."""
        needed = self.uploader.needed() if self.uploader is not None else ()
        try:
            self._store.prune(self._attempt, self._trusted, needed=needed)
            if not self._has_swept and self._previous is not None:
                self._store.sweep(outdone_by=self._previous.name)
                self._has_swept = True
        except OSError:
            _logger.warning("Old checkpoints could not be removed.", exc_info=True)
        except BaseException as error:  # noqa: BLE001  # raised on the main thread
            self._failure = error

    def _save(self, job: Job) -> None:
        if self._failure is not None:
            return
        meanwhile = [each for each in job.tensors if each.mode is not Mode.AT_ONCE]
        if self._backend.overlaps:
            job.wait_at_once()
        else:
            copy_tensors(meanwhile, self._backend)()
        copies = {i.spec.address: i.view for i in meanwhile if i.mode is Mode.GUARDED}
        is_whole = not meanwhile or job.still_valid(copies)
        self._copied.set()
        copied_s = self._clock()
        if not is_whole:
            self._all_at_once = True
            self._status = dataclasses.replace(self._status, wants_retake=True)
            return
        job.tensors = parted(job.tensors)
        hash_copies(job.tensors)
        noted = {
            s: {key: digest_of() for key, digest_of in each.items()}
            for s, each in job.noted.items()
        }
        if self._deceived(job) or self._is_torn(noted):
            return
        self._status = dataclasses.replace(self._status, state=SaveState.COPIED)
        weights = [t for t in job.tensors if t.section in job.weights]
        trained = [t for t in weights if job.is_trained(t.section, t.spec)]
        moments = [t for t in job.tensors if is_moment(t, job.moments)]
        finite = can_go_on(trained, moments)
        job.facts = dataclasses.replace(job.facts, is_finite=finite)
        finite, nbytes = self._commit(job, noted)
        self._unchanged = unchanged_counts_after(self._unchanged, job.tensors)
        self._committed_s = self._clock()
        timings = SaveTimings(
            stall_s=job.stall_s,
            copy_s=copied_s - job.began_s,
            write_s=self._committed_s - copied_s,
            nbytes=nbytes,
        )
        self._status = dataclasses.replace(
            self._status,
            error=None,
            state=SaveState.COMMITTED if self.uploader is None else SaveState.STAGED,
            step=job.facts.step,
            timings=timings,
            finite_step=job.facts.step if finite else self._status.finite_step,
            is_finite=finite,
        )

    def _deceived(self, job: Job) -> bool:
        """Whether a tensor taken for steady has changed: when it did, nobody can say."""
        steady = [each for each in job.tensors if each.mode is Mode.STEADY]
        changed = [each.place for each in steady if self._unchanged[each.place][0] != each.hash]
        for place in changed:
            del self._unchanged[place]
        if changed:
            self._status = dataclasses.replace(self._status, wants_retake=True)
        return bool(changed)

    def _is_torn(self, noted: Mapping[str, Mapping[str, str | None]]) -> bool:
        """Whether what was only to be noted has changed meanwhile."""
        changed = any(digest is None for each in noted.values() for digest in each.values())
        if changed:
            self._status = dataclasses.replace(self._status, wants_retake=True)
        return changed

    def _commit(self, job: Job, noted: Any) -> tuple[bool, int]:
        """Writes a checkpoint; returns whether its weights are finite, and how large it is."""
        name = self.next_name() if job.shared is None else job.shared.name
        draft = Draft(
            facts=job.facts,
            tensors=job.tensors,
            skeletons=job.skeletons,
            weights=job.weights,
            noted=noted,
        )
        # Behind a staging area it is the uploader that asks whose the folder is: Drive may be away.
        check = self._lease.check if self.uploader is None else _no_check
        check()
        shared = job.shared
        manifest, nbytes = self._store.commit(
            name,
            draft,
            previous=self._previous,
            check=check,
            parts=tuple if shared is None else lambda: shared.parts(self._store.lacking),
        )
        self._previous = manifest
        self._trusted.add(str(name))
        if self.uploader is not None:
            self.uploader.enqueue(manifest)
        return manifest.facts.is_finite, nbytes


def _no_check() -> None:
    return None
