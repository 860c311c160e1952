"""What goes wrong with the machine: its GPU, its packages, its release, a script on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from colabkit.errors.base import ColabKitError


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
