"""Reading: where bytes come from, read ahead in parallel and again after a failure."""

from colabkit.datasets.reading.access import Access
from colabkit.datasets.reading.downloads import Downloads
from colabkit.datasets.reading.drive_links import (
    drive_download,
    drive_file,
    drive_folder,
    drive_link,
    is_drive_id,
)
from colabkit.datasets.reading.hashed_source import HashedSource
from colabkit.datasets.reading.joined_source import JoinedSource
from colabkit.datasets.reading.read_ahead import CHUNK_BYTES, ReadAhead
from colabkit.datasets.reading.retried_source import RetriedSource, open_retried
from colabkit.datasets.reading.source import FileSource, FsspecSource, Source, open_source
from colabkit.datasets.reading.source_file import SourceFile
from colabkit.datasets.reading.split_names import (
    SplitArchive,
    folder_of,
    gathered,
    like_it,
    name_of,
    number_of,
    part_names,
)
from colabkit.datasets.reading.stamps import stamp_of
from colabkit.datasets.reading.urls import SIGN_IN_HINT, is_web, urls_like, urls_that_exist

__all__ = [
    "CHUNK_BYTES",
    "SIGN_IN_HINT",
    "Access",
    "Downloads",
    "FileSource",
    "FsspecSource",
    "HashedSource",
    "JoinedSource",
    "ReadAhead",
    "RetriedSource",
    "Source",
    "SourceFile",
    "SplitArchive",
    "drive_download",
    "drive_file",
    "drive_folder",
    "drive_link",
    "folder_of",
    "gathered",
    "is_drive_id",
    "is_web",
    "like_it",
    "name_of",
    "number_of",
    "open_retried",
    "open_source",
    "part_names",
    "stamp_of",
    "urls_like",
    "urls_that_exist",
]
