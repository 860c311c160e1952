"""What goes wrong with datasets and archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from colabkit.errors.base import ColabKitError


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

    @classmethod
    def of(cls, member: str, why: str) -> ArchiveCorruptError:
        """Returns the error for a damaged member; ``member`` is "" where its name is not known.

        Example:
            >>> print(ArchiveCorruptError.of("a.txt", "is cut short").message)
            Member 'a.txt' is cut short.
        """
        message = f"Member {member!r} {why}." if member else f"A member {why}."
        return cls(message, member=member, hint="Upload or download the archive again.")


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
