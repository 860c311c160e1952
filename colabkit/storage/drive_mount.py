"""Drive's mount: watched, never trusted, and mounted again when it is lost."""

from __future__ import annotations

import dataclasses
import enum
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from colabkit.errors import DriveLostError, DriveMountError, StorageError
from colabkit.storage.mounters import Mounter
from colabkit.storage.mounts import is_mountpoint

FIRST_TRY_S, LATER_TRY_S = 30.0, 10.0
_BACK_OFF_S = (60.0, 300.0, 900.0)
_PROBE_S = 3.0


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


class Mended(enum.Enum):
    """What a look at a mount that gives trouble came to."""

    FINE = "it is mounted"
    REMOUNTED = "it was lost and is mounted again"
    REFUSED = "it is lost, and a try to mount it failed"
    WAITING = "it is lost, and the next try is not due"


@dataclasses.dataclass(frozen=True, slots=True)
class Mending:
    """What ``DriveMount.mend`` did.

    Attributes:
        outcome: What it came to.
        error: Why the try failed, None otherwise.
        next_try_s: Seconds until the next try, 0 when none is needed.
    """

    outcome: Mended
    error: StorageError | None = None
    next_try_s: float = 0.0


class DriveMount:
    """One mountpoint of Drive; only ``require`` may be called off the main thread.

    Args:
        mountpoint: Where Drive is, or is to be.
        mounter: The program that mounts it.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        mountpoint: str | Path,
        mounter: Mounter,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mountpoint = Path(mountpoint)
        self.mounter = mounter
        self.root = mounter.root(self.mountpoint)
        self.mounted_s: float | None = None
        self.times_lost = 0
        self._clock = clock
        self._state = MountState.ABSENT
        self._device = 0
        self._tries_failed = 0
        self._next_try_s = 0.0

    @property
    def state(self) -> MountState:
        """The state as last seen."""
        return self._state

    def look(self) -> MountState:
        """Looks at the mountpoint, with a time-out, since a dead mount may hang whoever asks."""
        device = _device_of(self.root) if self.mounter.is_listed(self.mountpoint) else None
        seen = Observation(is_listed=device is not None, answers=bool(device))
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

        Raises:
            DriveMountError: It could not be mounted; ``cause`` says why.
        """
        if self.look() is not MountState.MOUNTED:
            self.mounter.mount(
                self.mountpoint,
                timeout_s=timeout_s,
                is_alive=lambda: self.look() is MountState.MOUNTED,
                is_lost=self._state is MountState.LOST and is_mountpoint(self.mountpoint),
            )
        self._tries_failed = 0
        return self.look()

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

    def lost_error(self) -> DriveLostError:
        """Returns the error for a mount that is gone."""
        message = f"Drive is not mounted at {self.mountpoint} any more."
        hint = "Run colabkit.mount(); what is not on Drive yet lies on this machine's disk."
        return DriveLostError(message, path=self.mountpoint, operation="reach Drive", hint=hint)

    def mend(self, *, now: bool = False) -> Mending:
        """Mounts again what is lost, when a try is due; on the main thread, between steps.

        Args:
            now: Whether to try at once, whatever the last tries came to.
        """
        before = self._state
        if self.look() is MountState.MOUNTED:
            self._tries_failed = 0
            was_lost = before is MountState.LOST
            return Mending(Mended.REMOUNTED if was_lost else Mended.FINE)
        if not now and self._clock() < self._next_try_s:
            return Mending(Mended.WAITING, next_try_s=self._next_try_s - self._clock())
        timeout_s = LATER_TRY_S if self._tries_failed else FIRST_TRY_S
        tries_failed = self._tries_failed
        try:
            self.mount(timeout_s=timeout_s)
        except DriveMountError as error:
            self._tries_failed = tries_failed + 1
            wait_s = wait_before_try_s(self._tries_failed)
            self._next_try_s = self._clock() + wait_s
            return Mending(Mended.REFUSED, error=error, next_try_s=wait_s)
        return Mending(Mended.REMOUNTED)

    def unmount(self, *, timeout_s: float) -> None:
        """Uploads what Drive's cache holds and takes the mount down; on the main thread.

        Raises:
            StorageError: It failed or took too long.
        """
        self.mounter.unmount(self.mountpoint, timeout_s=timeout_s)
        self._state, self.mounted_s = MountState.ABSENT, None


def _device_of(root: Path) -> int | None:
    """Returns the device number of a folder, 0 when it does not answer in time."""
    answer: list[int] = []

    def ask() -> None:
        try:
            answer.append(os.stat(root).st_dev)  # noqa: PTH116  # one system call, nothing else
        except OSError:
            answer.append(0)

    asking = threading.Thread(target=ask, name="colabkit-probe", daemon=True)
    asking.start()
    asking.join(_PROBE_S)
    return answer[0] if answer else 0
