"""Members of an archive: what they are called and may be, checked before any is written."""

from colabkit.datasets.members.clashes import Names, check_clashes, folders_of, replaced
from colabkit.datasets.members.damage import corrupt
from colabkit.datasets.members.encodings import FALLBACK, NameReader, decoded, encoding_of
from colabkit.datasets.members.limits import Limits
from colabkit.datasets.members.links import LINK_BYTES_MAX, Resolved, resolve
from colabkit.datasets.members.paths import (
    all_plain,
    check_mode,
    is_junk,
    is_junk_name,
    member_path,
    parents,
    placed,
)
from colabkit.datasets.members.remarks import Remark, Remarks, said_once
from colabkit.datasets.members.selection import Wanted, chosen, unanswered
from colabkit.datasets.members.tables import (
    ArchiveFile,
    Column,
    FileTable,
    PathColumn,
    UnpackedFile,
    UnpackedTable,
    are_in,
)

__all__ = [
    "FALLBACK",
    "LINK_BYTES_MAX",
    "ArchiveFile",
    "Column",
    "FileTable",
    "Limits",
    "NameReader",
    "Names",
    "PathColumn",
    "Remark",
    "Remarks",
    "Resolved",
    "UnpackedFile",
    "UnpackedTable",
    "Wanted",
    "all_plain",
    "are_in",
    "check_clashes",
    "check_mode",
    "chosen",
    "corrupt",
    "decoded",
    "encoding_of",
    "folders_of",
    "is_junk",
    "is_junk_name",
    "member_path",
    "parents",
    "placed",
    "replaced",
    "resolve",
    "said_once",
    "unanswered",
]
