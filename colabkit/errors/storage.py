"""What goes wrong with files, disks and Drive's mount."""

from __future__ import annotations

import enum
from pathlib import Path

from colabkit.errors.base import ColabKitError


class StorageError(ColabKitError, OSError):
    """Reading or writing a file failed; ``path`` and ``operation`` say where.

    Attributes:
        may_pass: Whether the same call may succeed a little later, as when a network is gone.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path = "",
        operation: str = "",
        hint: str = "",
        may_pass: bool = False,
    ) -> None:
        self.path = str(path)
        self.operation = operation
        self.may_pass = may_pass
        super().__init__(message, hint=hint)


class DiskFullError(StorageError):
    """A disk has too little room for what was about to be written."""

    def __init__(
        self,
        message: str,
        *,
        path: str | Path = "",
        needed_bytes: int = 0,
        free_bytes: int = 0,
        needed_files: int = 0,
        free_files: int = 0,
        hint: str = "",
    ) -> None:
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
        self.needed_files = needed_files
        self.free_files = free_files
        super().__init__(message, path=path, operation="write", hint=hint)


class MountFailure(enum.Enum):
    """Why Drive could not be mounted."""

    DENIED = "access to Drive was refused"
    NOBODY_THERE = "nobody answered the question for access"
    TIMED_OUT = "Drive answered too late"
    MOUNTPOINT_IN_USE = "the mountpoint cannot be used"
    NOT_SUPPORTED = "this machine cannot mount Drive"
    POLICY = "the account's administrator has switched Drive off here"
    NO_KERNEL = "there is no notebook to ask for access"
    WRONG_THREAD = "only the main thread may mount"
    NO_PROGRAM = "a program that mounts it is not installed"
    NOT_SIGNED_IN = "nobody has signed in to Drive for this program"
    NOT_OURS = "it was mounted by hand, and only a hand can mount it again"
    STOPPED = "the wait for it was stopped"
    FAILED = "Drive's own program failed"

    @property
    def may_pass(self) -> bool:
        """Whether the same call can succeed a little later."""
        return self in {MountFailure.NOBODY_THERE, MountFailure.TIMED_OUT, MountFailure.FAILED}


class DriveMountError(StorageError):
    """Drive could not be mounted; ``cause`` says why."""

    def __init__(
        self, message: str, *, cause: MountFailure, path: str | Path = "", hint: str = ""
    ) -> None:
        self.cause = cause
        super().__init__(message, path=path, operation="mount", hint=hint)


class DriveLostError(StorageError):
    """Drive was mounted and is not any more, or it does not answer."""
