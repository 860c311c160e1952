"""Datasets: an archive or a folder becomes a verified folder on local disk, once."""

from colabkit.datasets.fetch import dataset
from colabkit.datasets.kinds import ArchiveKind
from colabkit.datasets.limits import Limits
from colabkit.datasets.pack_call import pack
from colabkit.datasets.plan import Plan, plan_archive
from colabkit.datasets.progress import Progress
from colabkit.datasets.source import FileSource, FsspecSource, Source, open_source
from colabkit.datasets.tables import ArchiveFile, Manifest, UnpackedFile
from colabkit.datasets.unpack import unpack

__all__ = [
    "ArchiveFile",
    "ArchiveKind",
    "FileSource",
    "FsspecSource",
    "Limits",
    "Manifest",
    "Plan",
    "Progress",
    "Source",
    "UnpackedFile",
    "dataset",
    "open_source",
    "pack",
    "plan_archive",
    "unpack",
]
