"""What is said of a member whose bytes are not what the archive declares."""

from __future__ import annotations

from colabkit.errors import ArchiveCorruptError


def corrupt(path: str, why: str) -> ArchiveCorruptError:
    """Returns the error for a damaged member; ``path`` is "" where its name is not known."""
    message = f"Member {path!r} {why}." if path else f"A member {why}."
    return ArchiveCorruptError(message, member=path, hint="Upload or download the archive again.")
