"""Archives: planned from their directory alone, then unpacked with every CRC checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.doors import opened_on_use

if TYPE_CHECKING:
    from colabkit.datasets.archives.kinds import ArchiveKind, kind_of
    from colabkit.datasets.archives.planning import Plan, plan_archive
    from colabkit.datasets.archives.tar import unpacked_pieces
    from colabkit.datasets.archives.unpacking import unpack

__all__ = [
    "ArchiveKind",
    "Plan",
    "kind_of",
    "plan_archive",
    "unpack",
    "unpacked_pieces",
]

__getattr__, __dir__ = opened_on_use(
    __name__,
    {
        "kinds": "ArchiveKind kind_of",
        "planning": "Plan plan_archive",
        "tar": "unpacked_pieces",
        "unpacking": "unpack",
    },
)
