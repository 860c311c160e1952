"""Folders: listed, looked at twice where they are still written to, and copied."""

from colabkit.datasets.folders.listing import (
    THREADS,
    FolderReader,
    Listing,
    is_left_out,
    list_files,
    list_folder,
    unreadable,
)
from colabkit.datasets.folders.mirroring import Before, mirror
from colabkit.datasets.folders.settling import settle

__all__ = [
    "THREADS",
    "Before",
    "FolderReader",
    "Listing",
    "is_left_out",
    "list_files",
    "list_folder",
    "mirror",
    "settle",
    "unreadable",
]
