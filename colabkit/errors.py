"""The error tree: every error says what happened, where, and what to do next."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path


class ColabKitError(Exception):
    """Base of every error colabkit raises on purpose.

    Args:
        message: What happened and where, one sentence with numbers.
        hint: What to do next; shown after the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} {hint}".strip())

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ArgumentError(ColabKitError, ValueError):
    """An argument cannot be used; ``argument`` names it."""

    def __init__(self, message: str, *, argument: str, hint: str = "") -> None:
        self.argument = argument
        super().__init__(message, hint=hint)


class MissingPackageError(ColabKitError, ImportError):
    """A package that this call needs is not installed."""

    def __init__(self, message: str, *, package: str, hint: str = "") -> None:
        self.package = package
        super().__init__(message, hint=hint)


class StorageError(ColabKitError, OSError):
    """Reading or writing a file failed; ``path`` and ``operation`` say where."""

    def __init__(
        self, message: str, *, path: str | Path = "", operation: str = "", hint: str = ""
    ) -> None:
        self.path = str(path)
        self.operation = operation
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


class DatasetError(ColabKitError):
    """Base of what can go wrong with a dataset."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no such archive or folder; ``near_names`` are those like it."""

    def __init__(
        self, message: str, *, path: str | Path, near_names: Sequence[str] = (), hint: str = ""
    ) -> None:
        self.path = str(path)
        self.near_names = tuple(near_names)
        super().__init__(message, hint=hint)


class DatasetMismatchError(DatasetError, ValueError):
    """The archive is not the one whose SHA-256 was given."""

    def __init__(
        self, message: str, *, path: str | Path, expected: str, actual: str, hint: str = ""
    ) -> None:
        self.path = str(path)
        self.expected = expected
        self.actual = actual
        super().__init__(message, hint=hint)


class DatasetChangedError(DatasetError, OSError):
    """An archive or folder changed while it was read."""

    def __init__(self, message: str, *, path: str | Path, hint: str = "") -> None:
        self.path = str(path)
        super().__init__(message, hint=hint)


class DatasetClashError(DatasetError, ValueError):
    """Two archives of one dataset hold different files of one name."""

    def __init__(
        self, message: str, *, path: str, sources: Sequence[str] = (), hint: str = ""
    ) -> None:
        self.path = path
        self.sources = tuple(sources)
        super().__init__(message, hint=hint)


class DestinationTakenError(DatasetError, FileExistsError):
    """The place is taken by something that is not colabkit's to replace."""

    def __init__(self, message: str, *, path: str | Path, hint: str = "") -> None:
        self.path = str(path)
        super().__init__(message, hint=hint)


class UnsafeLinkError(DatasetError, ValueError):
    """A folder holds a link that leads outside it, or something that is not a file."""

    def __init__(self, message: str, *, path: str | Path, hint: str = "") -> None:
        self.path = str(path)
        super().__init__(message, hint=hint)


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


class MachineReleaseError(ColabKitError, RuntimeError):
    """The machine could not be given back."""


class GpuUnavailableError(ColabKitError, RuntimeError):
    """A GPU was required and none can be used.

    ``reason`` says why in one sentence, ``advice`` what changes it.
    """

    def __init__(self, *, reason: str, advice: str) -> None:
        self.reason = reason
        self.advice = advice
        super().__init__(f'gpu="require" found no GPU to train on. {reason}', hint=advice)


class CheckpointError(ColabKitError):
    """Base of what can go wrong with a checkpoint."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """The run folder holds no checkpoint of the kind asked for."""

    def __init__(self, message: str, *, path: str | Path, hint: str = "") -> None:
        self.path = str(path)
        super().__init__(message, hint=hint)


class CheckpointCorruptError(CheckpointError, ValueError):
    """A checkpoint's bytes are not what was written; ``path`` and ``reason`` say which."""

    def __init__(self, message: str, *, path: str | Path, reason: str = "", hint: str = "") -> None:
        self.path = str(path)
        self.reason = reason
        super().__init__(message, hint=hint)


class CheckpointMismatchError(CheckpointError, ValueError):
    """The checkpoint belongs to another model, optimizer or dataset.

    ``differences`` maps what changed to ``(then, now)``.
    """

    def __init__(
        self, message: str, *, differences: Mapping[str, tuple[object, object]], hint: str = ""
    ) -> None:
        self.differences = dict(differences)
        super().__init__(message, hint=hint)


class CheckpointWriteError(CheckpointError, OSError):
    """A checkpoint could not be written; the ones before it are untouched."""

    def __init__(self, message: str, *, path: str | Path, step: int, hint: str = "") -> None:
        self.path = str(path)
        self.step = step
        super().__init__(message, hint=hint)


class StateError(CheckpointError, TypeError):
    """An object's state holds something that cannot be stored without pickle."""

    def __init__(self, message: str, *, where: str, hint: str = "") -> None:
        self.where = where
        super().__init__(message, hint=hint)


class ArchiveError(ColabKitError):
    """Base of what can go wrong with an archive."""


class ArchiveUnsafeError(ArchiveError, ValueError):
    """An archive asks for something that must not be done; ``member`` names where."""

    def __init__(self, message: str, *, member: str = "", hint: str = "") -> None:
        self.member = member
        super().__init__(message, hint=hint)


class ArchiveCorruptError(ArchiveError, ValueError):
    """An archive's bytes are damaged, or it is none; ``member`` names where, "" for the whole."""

    def __init__(self, message: str, *, member: str = "", hint: str = "") -> None:
        self.member = member
        super().__init__(message, hint=hint)


class ArchivePasswordError(ArchiveError, ValueError):
    """A member is encrypted and the password is missing or wrong; ``member`` names it."""

    def __init__(self, message: str, *, member: str = "", hint: str = "") -> None:
        self.member = member
        super().__init__(message, hint=hint)


class ArchiveUnsupportedError(ArchiveError, ValueError):
    """An archive is sound but packed in a way that is not read here; ``member`` names where."""

    def __init__(self, message: str, *, member: str = "", hint: str = "") -> None:
        self.member = member
        super().__init__(message, hint=hint)


class LeaseLostError(ColabKitError, RuntimeError):
    """A newer session has taken over this run folder; this one must stop."""

    def __init__(self, message: str, *, path: str | Path, hint: str = "") -> None:
        self.path = str(path)
        super().__init__(message, hint=hint)


class DivergedError(ColabKitError, ArithmeticError):
    """The loss became NaN or infinite at ``step``; the last good checkpoint is untouched."""

    def __init__(self, message: str, *, step: int, epoch: int, loss: float, hint: str = "") -> None:
        self.step = step
        self.epoch = epoch
        self.loss = loss
        super().__init__(message, hint=hint)


class TrainingMemoryError(ColabKitError, MemoryError):
    """A step does not fit in memory, taken in parts of ``samples`` samples."""

    def __init__(self, message: str, *, samples: int, hint: str = "") -> None:
        self.samples = samples
        super().__init__(message, hint=hint)


class RunClosedError(ColabKitError, RuntimeError):
    """A run was used outside its loop, or from two loops at once."""


class ResumeProofError(ColabKitError, AssertionError):
    """``verify_resume`` found that a resumed run differs; ``tensors`` names where."""

    def __init__(self, message: str, *, tensors: Sequence[str], hint: str = "") -> None:
        self.tensors = tuple(tensors)
        super().__init__(message, hint=hint)


class PackageChangeError(ColabKitError, ValueError):
    """A package that was asked for would change a framework; nothing was installed.

    ``changes`` maps each framework to ``(installed, wanted)``.
    """

    def __init__(
        self, message: str, *, changes: Mapping[str, tuple[str, str]], hint: str = ""
    ) -> None:
        self.changes = dict(changes)
        super().__init__(message, hint=hint)


class ScriptNotFoundError(ColabKitError, FileNotFoundError):
    """There is no such script; ``near_names`` are those most like it."""

    def __init__(
        self, message: str, *, path: str | Path, near_names: Sequence[str] = (), hint: str = ""
    ) -> None:
        self.path = str(path)
        self.near_names = tuple(near_names)
        super().__init__(message, hint=hint)


class ScriptError(ColabKitError, RuntimeError):
    """A script ended badly; ``returncode`` is its exit status, below 0 the signal that ended it."""

    def __init__(self, message: str, *, path: str | Path, returncode: int, hint: str = "") -> None:
        self.path = str(path)
        self.returncode = returncode
        super().__init__(message, hint=hint)
