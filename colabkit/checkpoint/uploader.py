"""The uploader: one thread that brings staged checkpoints to a slow volume."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator

from colabkit.checkpoint.lease import Lease
from colabkit.checkpoint.manifest import Manifest
from colabkit.checkpoint.staging_area import note_copied
from colabkit.checkpoint.store import CheckpointStore
from colabkit.errors import LeaseLostError, StorageError

_logger = logging.getLogger(__name__)
_REST_MIN_S, _REST_MAX_S = 10.0, 300.0
_REST_SHARE = 4.0
# Where the volume does not say what is uploaded, this is how long it is waited for.
_SILENT_REST_S, _SILENT_TRUST_S = 60.0, 300.0
_RETRIES_S = (5.0, 15.0, 60.0)


@dataclasses.dataclass(frozen=True, slots=True)
class UploadStatus:
    """How far the volume is behind the staging area.

    Attributes:
        committed_step: Step of the newest checkpoint on the volume, None before the first.
        confirmed_step: Step of the newest that the volume says is uploaded.
        waiting: Checkpoints that are on the local disk only.
        error: What stands in the way, None when nothing does.
        busy_s: For how long the operation under way has run, 0 when none is.
        unconfirmed_s: For how long the newest on the volume has not been uploaded.
        is_silent: Whether the volume does not tell what is uploaded.
    """

    committed_step: int | None = None
    confirmed_step: int | None = None
    waiting: int = 0
    error: OSError | None = None
    busy_s: float = 0.0
    unconfirmed_s: float = 0.0
    is_silent: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being copied, and nothing waits for a copy or an upload."""
        return not (self.waiting or self.busy_s or self.unconfirmed_s or self.error)


@dataclasses.dataclass(frozen=True, slots=True)
class _Upload:
    manifest: Manifest
    since_s: float


def rest_s(copy_s: float, *, is_silent: bool, least_s: float = _REST_MIN_S) -> float:
    """Returns how long the volume is left alone after a copy that took some time.

    Args:
        copy_s: How long the copy took.
        is_silent: Whether the volume does not tell what is uploaded.
        least_s: The shortest rest.

    Example:
        >>> rest_s(5.0, is_silent=False)
        20.0
    """
    least_s = max(least_s, _SILENT_REST_S) if is_silent else least_s
    return min(_REST_MAX_S, max(least_s, _REST_SHARE * copy_s))


class Uploader:
    """Copies checkpoints from the staging area to the volume in their order, and prunes there.

    What is removed from the volume makes room for what is known to be uploaded, never for
    what is only on its way: at most one checkpoint is on its way at a time.

    Args:
        staging: The checkpoints on the local disk.
        store: The checkpoints on the volume.
        lease: This session's claim on the run folder.
        trusted: Names of checkpoints on the volume already known to be whole.
        found: The newest of those, which the session goes on from.
        keep: How many of the newest wait at most while the volume is out of reach.
        period_s: How often the user wants a save, None for as often as costs nothing.
        clock: Seconds that only grow.
        poll_s: How often to look at what is on its way, in real seconds.
    """

    def __init__(
        self,
        staging: CheckpointStore,
        store: CheckpointStore,
        *,
        lease: Lease,
        trusted: set[str],
        found: Manifest | None = None,
        keep: int = 2,
        period_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = 2.0,
    ) -> None:
        self._staging, self._store = staging, store
        self._lease, self._trusted, self._keep = lease, trusted, keep
        self._least_s = min(period_s or _REST_MIN_S, _REST_MIN_S)
        self._poll_s = min(poll_s, self._least_s)
        self._clock = clock
        self.failure: BaseException | None = None
        self._waiting: list[Manifest] = []
        self._copying: Manifest | None = None
        self._on_their_way: list[_Upload] = []
        self._found = found
        self._status = UploadStatus(committed_step=found.facts.step if found else None)
        self._began_s: float | None = None
        self._next_s = 0.0
        self._tries_failed = 0
        self._recovering = self._must_check = False
        self._is_silent = self._has_swept = False
        self._is_urgent = False
        self._stopping = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="colabkit-uploader", daemon=True)
        self._thread.start()

    def enqueue(self, manifest: Manifest) -> None:
        """Takes a checkpoint that is in the staging area; the caller does not wait."""
        with self._wake:
            self._waiting = list(_worth_copying([*self._waiting, manifest], self._keep))
            self._wake.notify_all()

    def needed(self) -> frozenset[str]:
        """Returns the names of the checkpoints that the staging area must not remove yet."""
        with self._wake:
            uploading = (upload.manifest for upload in self._on_their_way)
            # What is being copied may have been overtaken, and is read from the staging area still.
            copied = () if self._copying is None else (self._copying,)
            needed = (*self._waiting, *copied, *uploading)
            return frozenset(str(manifest.name) for manifest in needed)

    def status(self) -> UploadStatus:
        """Returns how far the volume is behind the staging area."""
        with self._wake:
            now_s = self._clock()
            return dataclasses.replace(
                self._status,
                waiting=len(self._waiting),
                is_silent=self._is_silent,
                busy_s=now_s - self._began_s if self._began_s is not None else 0.0,
                unconfirmed_s=now_s - self._on_their_way[0].since_s if self._on_their_way else 0.0,
            )

    def hurry(self) -> None:
        """Tries at once, whatever went wrong before; for a volume that is back."""
        with self._wake:
            self._next_s, self._tries_failed = 0.0, 0
            self._recovering = self._must_check = True
            self._status = dataclasses.replace(self._status, error=None)
            self._wake.notify_all()

    def wait_copied(self, *, timeout_s: float) -> bool:
        """Waits until nothing waits any more; returns whether that came in time.

        It also comes when an error stands in the way, which ``status`` then has.
        """
        with self._wake:
            self._is_urgent = True
            self._wake.notify_all()
            self._wake.wait_for(self._is_settled, timeout_s)
            self._is_urgent = False
            return self._is_settled()

    def _is_settled(self) -> bool:
        return not self._waiting or self._status.error is not None or self.failure is not None

    def wait_uploaded(self, *, timeout_s: float) -> bool:
        """Waits until the volume says that all is uploaded; returns whether it did."""
        with self._wake:
            self._wake.wait_for(self._is_confirmed, timeout_s)
            return self._is_confirmed()

    def _is_confirmed(self) -> bool:
        return not self._waiting and not self._on_their_way

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Stops the thread after a last look at the uploads, left behind where it hangs."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join(timeout_s)

    # On the uploader's own thread.

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._is_due(), self._poll_s)
                if self._stopping:
                    break
                manifest = self._copying = self._next() if self._is_due() else None
            try:
                self._look_at_found()
                self._check_uploads()
                if manifest is not None:
                    self._copy(manifest)
            except OSError as error:
                self._put_off(error, manifest)
            except BaseException as error:  # noqa: BLE001  # raised on the main thread
                self.failure = error
            finally:
                with self._wake:
                    self._began_s = self._copying = None
                    self._wake.notify_all()

        self._check_once_more()

    def _check_once_more(self) -> None:
        """What has arrived by now makes those before it superfluous, here as ever."""
        if self.failure is not None or self._status.error is not None or not self._on_their_way:
            return
        try:
            self._check_uploads()
        except (OSError, LeaseLostError):
            _logger.info("The volume could not be looked at once more.", exc_info=True)

    def _is_due(self) -> bool:
        if not self._waiting or self.failure is not None:
            return False
        if self._clock() < self._next_s and not (self._is_urgent and not self._tries_failed):
            return False
        return not self._on_their_way or self._is_silent or self._is_urgent

    def _next(self) -> Manifest:
        if not self._recovering:
            # The newest makes those before it superfluous, but for the best.
            self._waiting = list(_worth_copying(self._waiting, 1))
        return self._waiting[0]

    def _copy(self, manifest: Manifest) -> None:
        began_s = self._began_s = self._clock()
        self._store.copy_from(self._staging, manifest, self._lease.check)
        try:
            note_copied(self._staging, self._store.volume, manifest.name)
        except StorageError:
            # It is there all the same; without the note it may be brought over once more.
            _logger.warning("What is on the volume could not be noted.", exc_info=True)
        took_s = self._clock() - began_s
        with self._wake:
            self._waiting = [m for m in self._waiting if m.name > manifest.name]
            self._recovering = self._recovering and bool(self._waiting)
            self._tries_failed = 0
            self._on_their_way.append(_Upload(manifest, self._clock()))
            rest = rest_s(took_s, is_silent=self._is_silent, least_s=self._least_s)
            self._next_s = self._clock() + rest
            if self._recovering:
                self._next_s = 0.0
            # What a remount lost is copied after newer ones have arrived.
            newest = max(manifest.facts.step, self._status.committed_step or 0)
            self._status = dataclasses.replace(self._status, committed_step=newest, error=None)

    def _put_off(self, error: OSError, manifest: Manifest | None) -> None:
        is_of_staging = isinstance(error, StorageError) and error.path.startswith(
            str(self._staging.volume.location)
        )
        with self._wake:
            if is_of_staging and manifest is not None:
                _logger.warning("A staged checkpoint is gone: %s", error)
                self._waiting = [m for m in self._waiting if m.name != manifest.name]
                return
            wait_s = _RETRIES_S[min(self._tries_failed, len(_RETRIES_S) - 1)]
            self._tries_failed += 1
            self._recovering = True
            self._next_s = self._clock() + wait_s
            self._status = dataclasses.replace(self._status, error=error)

    def _look_at_found(self) -> None:
        """Asks whether what the session goes on from is uploaded, until the volume has said so."""
        if self._found is None or self._status.error is not None:
            return
        is_uploaded = self._store.is_confirmed(self._found)
        if is_uploaded is False:
            return
        with self._wake:
            if is_uploaded:
                step = max(self._found.facts.step, self._status.confirmed_step or 0)
                self._status = dataclasses.replace(self._status, confirmed_step=step)
            self._found = None

    def _check_uploads(self) -> None:
        """Asks whether what is on its way has arrived; then what is superfluous may go."""
        is_put_off = self._status.error is not None and self._clock() < self._next_s
        if not self._on_their_way or is_put_off:
            return
        self._began_s = self._clock()
        if self._must_check:
            self._find_the_lost()
        for upload in tuple(self._on_their_way):
            is_uploaded = self._store.is_confirmed(upload.manifest)
            self._is_silent = is_uploaded is None
            is_old = self._clock() - upload.since_s >= _SILENT_TRUST_S
            if not is_uploaded and not (is_uploaded is None and is_old):
                continue
            self._trusted.add(str(upload.manifest.name))
            with self._wake:
                self._on_their_way.remove(upload)
                if is_uploaded:
                    step = max(upload.manifest.facts.step, self._status.confirmed_step or 0)
                    self._status = dataclasses.replace(self._status, confirmed_step=step)
            self._lease.check()
            self._store.prune(upload.manifest.name.attempt, self._trusted)
            if not self._has_swept:
                # Only now: the volume may show a file before the manifest that names it.
                self._store.sweep(outdone_by=upload.manifest.name)
                self._has_swept = True
        with self._wake:
            self._status = dataclasses.replace(self._status, error=None)

    def _find_the_lost(self) -> None:
        """After a remount: what its cache has lost on the way is copied once more."""
        lost = [u.manifest for u in self._on_their_way if not self._store.holds(u.manifest)]
        with self._wake:
            self._must_check = False
            self._on_their_way = [u for u in self._on_their_way if u.manifest not in lost]
            if lost:
                there = (upload.manifest.facts.step for upload in self._on_their_way)
                newest = max(there, default=self._status.confirmed_step)
                self._status = dataclasses.replace(self._status, committed_step=newest)
            self._waiting = sorted([*lost, *self._waiting], key=lambda m: m.name)


def _worth_copying(waiting: list[Manifest], newest: int) -> Iterator[Manifest]:
    """Yields the newest, the best, and what is to be kept for ever, in their order.

    Where the newest have become NaN, the newest that has not is among them.
    """
    best = max((m.name for m in waiting if m.facts.is_best), default=None)
    finite = max((m.name for m in waiting if m.facts.is_finite), default=None)
    for place, manifest in enumerate(waiting):
        is_new = place >= len(waiting) - newest
        if is_new or manifest.name in {best, finite} or manifest.facts.keep_forever:
            yield manifest
