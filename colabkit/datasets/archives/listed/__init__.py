"""Archives that other packages read: 7z, rar and encrypted zip."""

from colabkit.datasets.archives.listed.seven_zip import SevenZipUnpacker, plan_7z
from colabkit.datasets.archives.listed.streamed import (
    EncryptedZip,
    Members,
    Rar,
    StreamUnpacker,
    plan_rar,
)

__all__ = [
    "EncryptedZip",
    "Members",
    "Rar",
    "SevenZipUnpacker",
    "StreamUnpacker",
    "plan_7z",
    "plan_rar",
]
