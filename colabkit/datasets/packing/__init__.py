"""Packing: a folder of many small files becomes one archive, kept fresh."""

from colabkit.datasets.packing.older_pack import is_pack
from colabkit.datasets.packing.pack_call import Packed, check_target, pack, pack_listed, pack_words

__all__ = [
    "Packed",
    "check_target",
    "is_pack",
    "pack",
    "pack_listed",
    "pack_words",
]
