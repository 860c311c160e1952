"""How far a folder is kept."""

from __future__ import annotations

import dataclasses

from colabkit.keeping.version import Version


@dataclasses.dataclass(frozen=True, slots=True)
class KeepProgress:
    """How far a folder is kept.

    Attributes:
        rounds: How many looks are done.
        newest: The newest version on the volume, None before the first.
        confirmed: The newest that is known to be uploaded.
        waiting: The paths of what is not in the newest version.
        waiting_nbytes: Their size.
        objections: Why some of that may not be taken yet.
        error: What stands in the way, None when nothing does.
        is_silent: Whether the volume does not tell what is uploaded.
        sent_nbytes: What was written to the volume.
    """

    rounds: int = 0
    newest: Version | None = None
    confirmed: Version | None = None
    waiting: tuple[str, ...] = ()
    waiting_nbytes: int = 0
    objections: tuple[str, ...] = ()
    error: OSError | None = None
    is_silent: bool = False
    sent_nbytes: int = 0

    @property
    def is_safe(self) -> bool:
        """Whether everything is uploaded."""
        return not self.waiting and self.newest is self.confirmed
