"""Folders: listed, looked at twice where they are still written to, and copied."""

from colabkit.datasets.folders.listing import (
    LEFT_OUT,
    THREADS,
    FolderReader,
    Listing,
    list_files,
    list_folder,
    unreadable,
)
from colabkit.datasets.folders.mirroring import Before, mirror
from colabkit.datasets.folders.settling import settle

__all__ = [
    "LEFT_OUT",
    "THREADS",
    "Before",
    "FolderReader",
    "Listing",
    "list_files",
    "list_folder",
    "mirror",
    "settle",
    "unreadable",
]
