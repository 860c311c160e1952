"""What goes wrong with runs and their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from colabkit.errors.base import ColabKitError


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


class LeaseLostError(ColabKitError, RuntimeError):
    """A newer session has taken over this run folder; this one must stop."""

    def __init__(self, message: str, *, path: str | Path, hint: str = "") -> None:
        self.path = str(path)
        super().__init__(message, hint=hint)


class ProcessLostError(ColabKitError, ConnectionError):
    """Another process of a job that trains together has failed, died, or does not answer."""


class ProcessesApartError(ColabKitError, RuntimeError):
    """Processes that train together do not run the same program, and have come to other places."""


class ReplicasDifferError(ColabKitError, RuntimeError):
    """The copies of a model in several processes have come to hold different weights."""


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


class ResumeProofError(ColabKitError, AssertionError):
    """``verify_resume`` found that a resumed run differs; ``tensors`` names where."""

    def __init__(self, message: str, *, tensors: Sequence[str], hint: str = "") -> None:
        self.tensors = tuple(tensors)
        super().__init__(message, hint=hint)
