"""Datasets: an archive or a folder becomes a verified folder on local disk, once."""

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
