"""Zip archives: a directory in columns, members unpacked by all cores."""

from colabkit.datasets.archives.zip.planning import ZipLayout, plan_zip
from colabkit.datasets.archives.zip.unpacking import ZipUnpacker

__all__ = [
    "ZipLayout",
    "ZipUnpacker",
    "plan_zip",
]
