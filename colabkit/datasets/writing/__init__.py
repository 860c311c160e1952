"""Writing: the folder that is unpacked into, and the processes that fill it."""

from colabkit.datasets.writing.file_batches import SMALL_BYTES, FileBatches
from colabkit.datasets.writing.small_files import (
    DAMAGES,
    DEFLATE,
    STORED,
    Content,
    Head,
    Item,
    crc32,
    inflate_whole,
)
from colabkit.datasets.writing.tree import Tree
from colabkit.datasets.writing.writer_process import FROM_FILES, WriterProcess

__all__ = [
    "DAMAGES",
    "DEFLATE",
    "FROM_FILES",
    "SMALL_BYTES",
    "STORED",
    "Content",
    "FileBatches",
    "Head",
    "Item",
    "Tree",
    "WriterProcess",
    "crc32",
    "inflate_whole",
]
