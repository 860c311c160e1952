"""Volumes: where checkpoints lie, written so that a name means whole content."""

from colabkit.storage.files import Files
from colabkit.storage.hashing import hash_of
from colabkit.storage.local import LocalVolume
from colabkit.storage.mounts import filesystem_type, is_slow
from colabkit.storage.places import DEFAULT_MOUNTPOINT, drive_part, locate
from colabkit.storage.volume import Bytes, Volume

__all__ = [
    "DEFAULT_MOUNTPOINT",
    "Bytes",
    "Files",
    "LocalVolume",
    "Volume",
    "drive_part",
    "filesystem_type",
    "hash_of",
    "is_slow",
    "locate",
]
