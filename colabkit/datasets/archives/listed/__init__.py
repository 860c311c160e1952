"""Archives that other packages read: 7z and rar."""

from colabkit.datasets.archives.listed.seven_zip import SevenZipUnpacker, plan_7z
from colabkit.datasets.archives.listed.streamed import (
    Members,
    Rar,
    StreamUnpacker,
    plan_rar,
)

__all__ = [
    "Members",
    "Rar",
    "SevenZipUnpacker",
    "StreamUnpacker",
    "plan_7z",
    "plan_rar",
]
