"""Tar archives: a strict reading of headers, contents cut out of one stream."""

from colabkit.datasets.archives.tar.stream import unpacked_pieces
from colabkit.datasets.archives.tar.unpacking import TarUnpacker

__all__ = [
    "TarUnpacker",
    "unpacked_pieces",
]
