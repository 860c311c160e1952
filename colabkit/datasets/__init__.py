"""Datasets: an archive or a folder becomes a verified folder on local disk, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.doors import opened_on_use

if TYPE_CHECKING:
    from colabkit.datasets.api import dataset
    from colabkit.datasets.archives.kinds import ArchiveKind, Plan, plan_archive
    from colabkit.datasets.archives.members import ArchiveFile, UnpackedFile, UnpackedTable
    from colabkit.datasets.archives.safety import Limits
    from colabkit.datasets.archives.unpacking import unpack
    from colabkit.datasets.packing.pack_call import pack
    from colabkit.datasets.reading.progress import TransferProgress
    from colabkit.datasets.reading.source import FileSource, FsspecSource, Source, open_source

__all__ = [
    "ArchiveFile",
    "ArchiveKind",
    "FileSource",
    "FsspecSource",
    "Limits",
    "Plan",
    "Source",
    "TransferProgress",
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
        "api": "dataset",
        "archives.kinds": "ArchiveKind Plan plan_archive",
        "archives.members": "ArchiveFile UnpackedFile UnpackedTable",
        "archives.safety": "Limits",
        "archives.unpacking": "unpack",
        "packing.pack_call": "pack",
        "reading.progress": "TransferProgress",
        "reading.source": "FileSource FsspecSource Source open_source",
    },
)
