"""Datasets: an archive or a folder becomes a verified folder on local disk, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.doors import opened_on_use

if TYPE_CHECKING:
    from colabkit.datasets.archives import ArchiveKind, Plan, plan_archive, unpack
    from colabkit.datasets.fetch import dataset
    from colabkit.datasets.members import ArchiveFile, Limits, UnpackedFile, UnpackedTable
    from colabkit.datasets.packing import pack
    from colabkit.datasets.reading import FileSource, FsspecSource, Source, open_source
    from colabkit.datasets.transfer import Progress

__all__ = [
    "ArchiveFile",
    "ArchiveKind",
    "FileSource",
    "FsspecSource",
    "Limits",
    "Plan",
    "Progress",
    "Source",
    "UnpackedFile",
    "UnpackedTable",
    "dataset",
    "open_source",
    "pack",
    "plan_archive",
    "unpack",
]

__getattr__, __dir__ = opened_on_use(
    __name__,
    {
        "archives": "ArchiveKind Plan plan_archive unpack",
        "fetch": "dataset",
        "members": "ArchiveFile Limits UnpackedFile UnpackedTable",
        "packing": "pack",
        "reading": "FileSource FsspecSource Source open_source",
        "transfer": "Progress",
    },
)
