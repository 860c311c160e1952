"""Archives: planned from their directory alone, then unpacked with every CRC checked."""

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
