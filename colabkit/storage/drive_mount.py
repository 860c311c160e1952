"""Drive's mount: watched, never trusted, and mounted again when it is lost."""

from __future__ import annotations

import dataclasses
import enum
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from colabkit.errors import DriveLostError, DriveMountError, MountFailure, StorageError
from colabkit.storage.mounter import Mounter, MountRequest, Telling
from colabkit.storage.mounts import device_of
from colabkit.storage.working_folder import WorkingFolder

DEFAULT_MOUNTPOINT = "/content/drive"
FIRST_TRY_S, LATER_TRY_S = 30.0, 10.0
_BACK_OFF_S = (60.0, 300.0, 900.0)
_UNCOMMITTED, _ID = "user.drive.uncommitted", "user.drive.id"


class MountState(enum.Enum):
    """Whether Drive can be used."""

    ABSENT = "not mounted"
    MOUNTED = "mounted"
    LOST = "lost"


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """What one look at a mountpoint showed.

    Attributes:
        is_listed: Whether the mount table has it.
        answers: Whether the folder of My Drive could be looked at in time.
    """

    is_listed: bool
    answers: bool


def state_after(before: MountState, seen: Observation) -> MountState:
    """Returns the state that a look at the mountpoint shows.

    Example:
        >>> state_after(MountState.MOUNTED, Observation(is_listed=False, answers=False))
        <MountState.LOST: 'lost'>
    """
    if seen.is_listed:
        return MountState.MOUNTED if seen.answers else MountState.LOST
    return MountState.ABSENT if before is MountState.ABSENT else MountState.LOST


def wait_before_try_s(tries_failed: int) -> float:
    """Returns how long to wait after so many tries to remount have failed."""
    return _BACK_OFF_S[min(tries_failed, len(_BACK_OFF_S)) - 1] if tries_failed else 0.0


class RemountOutcome(enum.Enum):
    """What a look at a mount that gives trouble came to."""

    FINE = "it is mounted"
    REMOUNTED = "it was lost and is mounted again"
    RENEWED = "it was old and is mounted anew"
    KEPT = "it is old, and stays until it has uploaded what it holds"
    REFUSED = "it is lost, and a try to mount it failed"
    WAITING = "it is lost, and the next try is not due"


@dataclasses.dataclass(frozen=True, slots=True)
class RemountResult:
    """What ``DriveMount.remount`` did.

    Attributes:
        outcome: What it came to.
        error: Why the try failed, None otherwise.
        next_try_s: Seconds until the next try, 0 when none is needed.
    """

    outcome: RemountOutcome
    error: StorageError | None = None
    next_try_s: float = 0.0


class DriveMount:
    """One mountpoint of Drive; only ``require`` may be called off the main thread.

    Args:
        mountpoint: Where Drive is, or is to be.
        mounter: The program that mounts it.
        asked: What the user asked for, so that the same request is known again.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        mountpoint: str | Path,
        mounter: Mounter,
        *,
        asked: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mountpoint = Path(mountpoint)
        self.mounter = mounter
        self.asked = asked or mounter.name
        self.root = mounter.root(self.mountpoint)
        self.mounted_s: float | None = None
        self.renew_after_s: float | None = None
        self.times_lost = 0
        self._clock = clock
        self._state = MountState.ABSENT
        self._device = 0
        self._tries_failed = 0
        self._next_try_s = self._next_renewal_s = 0.0
        self._stopped: DriveMountError | None = None
        self._written: set[Path] = set()
        self._working = WorkingFolder(self.mountpoint)
        self._lock = threading.Lock()

    @property
    def state(self) -> MountState:
        """The state as last seen."""
        return self._state

    def probe(self) -> MountState:
        """Looks at the mountpoint, with a time-out, since a dead mount may hang whoever asks."""
        is_listed = self.mounter.is_listed(self.mountpoint)
        device = device_of(self.root) if is_listed else None
        seen = Observation(is_listed=is_listed, answers=device is not None)
        before, self._state = self._state, state_after(self._state, seen)
        if self._state is MountState.MOUNTED:
            self._device = device or 0
            if before is not MountState.MOUNTED:
                self.mounted_s = self._clock()
        elif before is MountState.MOUNTED:
            self.times_lost += 1
        return self._state

    def mount(self, *, timeout_s: float = 120.0) -> MountState:
        """Mounts Drive where it is not; on the main thread only.

        Args:
            timeout_s: How long to wait for the person who allows it.

        Raises:
            DriveMountError: It could not be mounted; ``cause`` says why.
        """
        if self.probe() is not MountState.MOUNTED:
            is_lost = self._state is MountState.LOST and self.mounter.is_listed(self.mountpoint)
            wanted = MountRequest(timeout_s, is_alive=self._is_mounted, is_lost=is_lost)
            self._mount_from_outside(wanted)
        self._working.go_back()
        self._tries_failed, self._stopped = 0, None
        return self.probe()

    def _mount_from_outside(self, wanted: MountRequest) -> None:
        """Mounts while this process works elsewhere: a folder on the mount would keep it busy."""
        self._working.leave()
        try:
            self.mounter.mount(self.mountpoint, wanted)
        except BaseException:
            if self.probe() is MountState.MOUNTED:
                self._working.go_back()
            else:
                self._working.go_nowhere()
            raise

    def _is_mounted(self) -> bool:
        return self.probe() is MountState.MOUNTED

    @property
    def wants_renewal(self) -> bool:
        """Whether the mount is older than the user lets one become."""
        if self.renew_after_s is None or self.mounted_s is None:
            return False
        return self._clock() - self.mounted_s >= self.renew_after_s

    @property
    def age_s(self) -> float | None:
        """Seconds since Drive was seen to be mounted, None when it is not."""
        if self._state is not MountState.MOUNTED or self.mounted_s is None:
            return None
        return self._clock() - self.mounted_s

    def require(self) -> None:
        """Makes sure that what lies under the root is Drive, and not a bare folder.

        Raises:
            DriveLostError: It is not.
        """
        try:
            device = self.root.stat().st_dev
        except OSError as error:
            raise self.lost_error() from error
        if device != self._device:
            raise self.lost_error()

    def lost_error(self, said: str = "") -> DriveLostError:
        """Returns the error for a mount that is gone, or that said something else than answers."""
        message = f"Drive is not mounted at {self.mountpoint} any more."
        if said:
            message = f"Drive at {self.mountpoint} does not answer ({said})."
        hint = "Run colabkit.mount(); what is not on Drive yet lies on this machine's disk."
        return DriveLostError(message, path=self.mountpoint, operation="reach Drive", hint=hint)

    def remount(self, *, now: bool = False) -> RemountResult:
        """Mounts again what is lost, when a try is due; on the main thread, between steps.

        Args:
            now: Whether to try at once, whatever the last tries came to.
        """
        before = self._state
        if self.probe() is MountState.MOUNTED:
            self._tries_failed = 0
            self._working.go_back()
            was_lost = before is MountState.LOST
            return RemountResult(RemountOutcome.REMOUNTED if was_lost else RemountOutcome.FINE)
        left_s = self._next_try_s - self._clock()
        if left_s > 0 and self._stopped is not None:
            # Whoever stopped the wait wants the cell back, and not to be asked again at its end.
            return RemountResult(RemountOutcome.REFUSED, error=self._stopped, next_try_s=left_s)
        if not now and left_s > 0:
            return RemountResult(RemountOutcome.WAITING, next_try_s=left_s)
        timeout_s = LATER_TRY_S if self._tries_failed else FIRST_TRY_S
        tries_failed = self._tries_failed
        try:
            self.mount(timeout_s=timeout_s)
        except DriveMountError as error:
            self._tries_failed = tries_failed + 1
            wait_s = wait_before_try_s(self._tries_failed)
            self._next_try_s = self._clock() + wait_s
            self._stopped = error if error.cause is MountFailure.STOPPED else None
            return RemountResult(RemountOutcome.REFUSED, error=error, next_try_s=wait_s)
        return RemountResult(RemountOutcome.REMOUNTED)

    def renew(self) -> RemountResult:
        """Uploads what Drive holds, takes down what has become old and mounts it anew.

        What others have written is there, too: nothing is taken down before it is uploaded.
        Where it cannot be mounted then, it is lost as ever, for ``remount``.
        """
        left_s = self._next_renewal_s - self._clock()
        if left_s > 0:
            return RemountResult(RemountOutcome.WAITING, next_try_s=left_s)
        try:
            self.unmount(timeout_s=FIRST_TRY_S)
        except StorageError as error:
            self._next_renewal_s = self._clock() + _BACK_OFF_S[-1]
            return RemountResult(RemountOutcome.KEPT, error=error, next_try_s=_BACK_OFF_S[-1])
        self._state = MountState.LOST
        result = self.remount(now=True)
        is_back = result.outcome is RemountOutcome.REMOUNTED
        return RemountResult(RemountOutcome.RENEWED) if is_back else result

    # What was written and may not be uploaded yet.

    def note_written(self, path: Path) -> None:
        """Remembers a file until Drive says that it is uploaded."""
        with self._lock:
            self._written.add(path)

    def note_gone(self, path: Path) -> None:
        """Forgets a file that was removed, or that was seen to be uploaded."""
        with self._lock:
            self._written.discard(path)

    def is_uploaded(self, path: Path) -> bool | None:
        """Returns whether Drive has uploaded a file, None where it does not say; False without it.

        Source:
            Drive's own program tells by the extended attributes ``user.drive.id``, which
            begins with ``local-`` before the upload, and ``user.drive.uncommitted``.
        """
        if isinstance(self.mounter, Telling):
            return self.mounter.is_uploaded(self.mountpoint, path)
        told = _attribute(path, _ID)
        if told is None:
            return None if path.exists() else False
        return not told.startswith(b"local-") and _attribute(path, _UNCOMMITTED) != b"1"

    @property
    def is_unsure(self) -> bool:
        """Whether something was written here that was never seen to be uploaded."""
        with self._lock:
            return bool(self._written)

    def pending(self) -> list[Path]:
        """Returns the files written here that Drive says are not uploaded."""
        with self._lock:
            written = set(self._written)
        waiting = {path for path in written if self.is_uploaded(path) is False and path.exists()}
        with self._lock:
            self._written -= written - waiting
        return sorted(waiting)

    def unmount(self, *, timeout_s: float) -> None:
        """Uploads what Drive's cache holds and takes the mount down; on the main thread.

        Raises:
            StorageError: It failed or took too long.
        """
        self._working.leave()
        try:
            self.mounter.unmount(self.mountpoint, timeout_s=timeout_s)
        except BaseException:
            self._working.go_back()
            raise
        self._state, self.mounted_s = MountState.ABSENT, None
        self._written.clear()


def _attribute(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError:
        return None
