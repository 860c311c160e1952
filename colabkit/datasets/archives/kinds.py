"""Which kind of archive it is, and what it would unpack to, before anything is written."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from colabkit.datasets.archives.codecs import Password
from colabkit.datasets.archives.members import ArchiveFile, FileTable, Remarks
from colabkit.datasets.archives.safety import Limits, MemberSelection, Resolved, chosen
from colabkit.datasets.archives.zip_format import END_MAGIC, LOCAL_MAGIC
from colabkit.datasets.archives.zip_members import ZipLayout, plan_zip
from colabkit.datasets.reading.source import Source
from colabkit.errors import ArchiveCorruptError
from colabkit.storage import hash_of

if TYPE_CHECKING:
    from colabkit.datasets.archives.adapters import ListedPlan

_TAR_MAGIC_AT = 257
_BLOCK_BYTES = 512
_EMPTY_TAR_BYTES = frozenset({1024, 10240})
_END_BLOCK_BYTES = 64 << 10


class ArchiveKind(enum.Enum):
    """A kind of archive."""

    ZIP = "zip"
    TAR = "tar"
    TAR_GZ = "tar.gz"
    TAR_BZ2 = "tar.bz2"
    TAR_XZ = "tar.xz"
    TAR_ZST = "tar.zst"
    TAR_LZ4 = "tar.lz4"
    TAR_LZMA = "tar.lzma"
    SEVEN_ZIP = "7z"
    RAR = "rar"

    @property
    def is_tar(self) -> bool:
        """Whether it is a tar, packed or not."""
        return self.value.startswith("tar")


_MAGIC = (
    (LOCAL_MAGIC, ArchiveKind.ZIP),
    (END_MAGIC, ArchiveKind.ZIP),
    (b"PK\x07\x08", ArchiveKind.ZIP),  # the first part of several
    (b"\x1f\x8b", ArchiveKind.TAR_GZ),
    (b"BZh", ArchiveKind.TAR_BZ2),
    (b"\xfd7zXZ\x00", ArchiveKind.TAR_XZ),
    (b"\x28\xb5\x2f\xfd", ArchiveKind.TAR_ZST),
    (b"\x04\x22\x4d\x18", ArchiveKind.TAR_LZ4),
    # LZMA as it was before xz: properties, then a dictionary of whole mebibytes as a rule.
    (b"\x5d\0\0", ArchiveKind.TAR_LZMA),
    (b"7z\xbc\xaf\x27\x1c", ArchiveKind.SEVEN_ZIP),
    (b"Rar!\x1a\x07", ArchiveKind.RAR),
)


# Frames with notes for others, of zstd's and lz4's kind alike; pzstd begins with one.
_SKIPPED = tuple(bytes([nibble]) + b"\x2a\x4d\x18" for nibble in range(0x50, 0x60))
_SKIPPED_HEAD_BYTES = 8
_OLD_LZ4 = "a file packed by lz4 -l"
BY_BSDTAR = (
    "run !bsdtar -xf ARCHIVE -C FOLDER (it comes with apt-get install -y libarchive-tools), and"
    " pass the folder"
)
_ANSWERS = (b"<?xml", b"<Error", b"{")
# (where, magic, what) of archives that other programs unpack.
_UNREAD = (
    (0, b"070701", "a cpio archive"),
    (0, b"070702", "a cpio archive"),
    (0, b"070707", "a cpio archive"),
    (0, b"\xc7\x71", "a cpio archive"),
    (0, b"\x71\xc7", "a cpio archive"),
    (0, b"!<arch>\n", "an ar archive"),
    (0, b"\x1f\x9d", "a file packed by compress"),
    (0, b"LZIP", "a file packed by lzip"),
    (0, b"\x89LZO\0", "a file packed by lzop"),
    (0, b"\x02\x21\x4c\x18", _OLD_LZ4),
    (0, b"MSCF\0\0\0\0", "a cabinet file"),
    (0, b"xar!", "a xar archive"),
    (0x8001, b"CD001", "a CD image"),
)
_LFS_POINTER = b"version https://git-lfs"
_SKIPPED_MAX = 64


def magic_of(kind: ArchiveKind) -> bytes:
    """Returns what an archive of a kind begins with."""
    return next(magic for magic, each in _MAGIC if each is kind)


def skipped_bytes(head: bytes) -> int:
    """Returns the size of the frame for others that begins here, 0 where none does.

    Args:
        head: Eight bytes or more.
    """
    if len(head) < _SKIPPED_HEAD_BYTES or not head.startswith(_SKIPPED):
        return 0
    return _SKIPPED_HEAD_BYTES + int.from_bytes(head[4:_SKIPPED_HEAD_BYTES], "little")


def kind_of(source: Source) -> ArchiveKind:
    """Returns an archive's kind; raises ArchiveCorruptError where it is none that is known."""
    head = source.read(0, _BLOCK_BYTES)
    if nbytes := skipped_bytes(head):
        return _kind_behind(source, nbytes)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    is_tar = head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar" or _is_old_tar(head)
    if is_tar or _is_empty_tar(source, head):
        return ArchiveKind.TAR
    if _ends_like_a_zip(source):
        return ArchiveKind.ZIP
    raise ArchiveCorruptError(_not_an_archive(source, head), hint=_hint(source, head))


def _kind_behind(source: Source, place: int) -> ArchiveKind:
    """Returns the kind of the first frame behind those that are skipped."""
    for _ in range(_SKIPPED_MAX):
        head = source.read(place, _SKIPPED_HEAD_BYTES)
        if not (nbytes := skipped_bytes(head)):
            break
        place += nbytes
    is_lz4 = head.startswith(magic_of(ArchiveKind.TAR_LZ4))
    return ArchiveKind.TAR_LZ4 if is_lz4 else ArchiveKind.TAR_ZST


def _is_old_tar(head: bytes) -> bool:
    """Whether a block's checksum is that of a tar header, for tars older than ustar."""
    if len(head) < _BLOCK_BYTES or not head[0]:
        return False
    try:
        declared = int(head[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return declared == sum(head[:148]) + sum(head[156:]) + 8 * 32


def _is_empty_tar(source: Source, head: bytes) -> bool:
    """Whether it is a tar of nothing, and no larger file that lost its bytes."""
    if source.nbytes not in _EMPTY_TAR_BYTES or head.strip(b"\0"):
        return False
    return not source.read(0, source.nbytes).strip(b"\0")


def _ends_like_a_zip(source: Source) -> bool:
    """Whether a zip follows something else, as in a self-extracting program."""
    tail_bytes = min(source.nbytes, 1 << 16)
    return END_MAGIC in source.read(source.nbytes - tail_bytes, tail_bytes)


def _not_an_archive(source: Source, head: bytes) -> str:
    if not head:
        return f"{source.name} is empty."
    return (
        f"{source.name} ({source.nbytes:,} bytes) is no zip, tar, 7z or rar: "
        f"it starts with {head[:16]!r}."
    )


def of_other_programs(read: Callable[[int, int], bytes]) -> str:
    """Returns what an archive is that other programs unpack, "" for anything else.

    Args:
        read: Returns the bytes at a place, as ``Source.read``.
    """
    found = (what for where, magic, what in _UNREAD if read(where, len(magic)) == magic)
    return next(found, "")


def _hint(source: Source, head: bytes) -> str:
    if head[:256].lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "It is a web page, perhaps one that asks to sign in; download the file itself."
    if head.startswith(_LFS_POINTER):
        return "It is a pointer of Git LFS: run !git lfs pull where it was cloned, for the file."
    if head.lstrip().startswith(_ANSWERS):
        return "It is what a server answered in place of the file: look at it with !head -c 300."
    what = of_other_programs(source.read)
    if what == _OLD_LZ4:
        return "It is packed by lz4 -l: unpack it with lz4 -d, and pack it anew without -l."
    if what:
        return f"It is {what}: for its files {BY_BSDTAR}."
    return "Was it downloaded or uploaded whole?"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an archive holds.

    ``nbytes`` and ``n_files`` are None, and ``files`` is empty, where only reading the archive
    tells, as with a tar. ``digest`` changes when any member does, where it tells all. ``names``
    are the members as the package knows them that reads a 7z or a rar, ``times`` when they were
    changed.
    """

    kind: ArchiveKind
    files: Sequence[ArchiveFile]
    nbytes: int | None
    n_files: int | None
    digest: str
    limits: Limits
    archive_bytes: int
    folders: tuple[str, ...] = ()
    links: Resolved = field(default_factory=Resolved)
    wanted: MemberSelection | None = None
    layout: ZipLayout | None = None
    names: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    remarks: Remarks = field(default_factory=Remarks)
    encoding: str | None = None

    @property
    def digest_tells_all(self) -> bool:
        """Whether no byte can change without the digest: by the CRCs in a directory.

        A packed tar ends with a checksum of its last stream, and may be of several.
        """
        return isinstance(self.files, FileTable) and self.files.has_all_crcs


def plan_archive(
    source: Source,
    *,
    password: Password = None,
    members: Callable[[str], bool] | Sequence[str] | None = None,
    limits: Limits | None = None,
    encoding: str | None = None,
) -> Plan:
    """Reads an archive's directory and checks every member in it.

    Args:
        source: The archive.
        password: For an encrypted one.
        members: Which members to unpack: a function of the path, or a list of paths, folders
            and patterns such as ``"train/*.jpg"``; all if left out.
        limits: What counts as a bomb.
        encoding: Of the names that do not tell theirs, as "gbk"; judged by all of them by default.

    Raises:
        ArchiveUnsafeError: A member would lead outside, or the archive is a bomb.
        ArchiveCorruptError: It is damaged, or no archive.
        ArchivePasswordError: It is encrypted and no password was given.
    """
    plan = Plan(
        kind=kind_of(source),
        files=(),
        nbytes=None,
        n_files=None,
        digest="",
        limits=limits or Limits(),
        archive_bytes=source.nbytes,
        wanted=chosen(members),
        encoding=encoding,
    )
    return _PLANNED.get(plan.kind, _planned_tar)(plan, source, password)


def _planned_zip(plan: Plan, source: Source, password: Password) -> Plan:
    found = plan_zip(source, plan.wanted, plan.limits, password, plan.remarks, plan.encoding)
    return replace(
        plan,
        files=found.files,
        nbytes=sum(found.files.nbytes),
        n_files=len(found.files) + len(found.links.to_files),
        digest=found.digest,
        folders=found.folders,
        links=found.links,
        layout=found.layout,
    )


def _planned_7z(plan: Plan, source: Source, password: Password) -> Plan:
    # Loaded for these alone, as what unpacks each kind is.
    from colabkit.datasets.archives.seven_zip import plan_7z

    return _listed(plan, plan_7z(source, plan.wanted, plan.limits, password, plan.remarks))


def _planned_rar(plan: Plan, source: Source, password: Password) -> Plan:
    from colabkit.datasets.archives.adapters import plan_rar

    return _listed(plan, plan_rar(source, plan.wanted, plan.limits, password, plan.remarks))


def _listed(plan: Plan, found: ListedPlan) -> Plan:
    return replace(
        plan,
        files=found.files,
        nbytes=sum(found.files.nbytes),
        n_files=len(found.files) + len(found.links.to_files),
        digest=found.digest,
        folders=found.folders,
        links=found.links,
        names=found.names,
        times=found.times,
    )


def _planned_tar(plan: Plan, source: Source, password: Password) -> Plan:  # noqa: ARG001
    return replace(plan, digest=_digest_of_ends(source))


# The others are tars.
_PLANNED = {
    ArchiveKind.ZIP: _planned_zip,
    ArchiveKind.SEVEN_ZIP: _planned_7z,
    ArchiveKind.RAR: _planned_rar,
}


def _digest_of_ends(source: Source) -> str:
    """Returns a hash of the size and of the first and last blocks."""
    first = source.read(0, _END_BLOCK_BYTES)
    last = source.read(max(0, source.nbytes - _END_BLOCK_BYTES), _END_BLOCK_BYTES)
    return hash_of(first, last, str(source.nbytes).encode())
