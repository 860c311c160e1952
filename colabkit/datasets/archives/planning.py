"""What an archive would unpack to, decided from its directory before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from colabkit.datasets.archives.codecs import Password
from colabkit.datasets.archives.kinds import ArchiveKind, kind_of
from colabkit.datasets.archives.limits import Limits
from colabkit.datasets.archives.member_links import Resolved
from colabkit.datasets.archives.member_selection import Wanted, chosen
from colabkit.datasets.archives.members import ArchiveFile
from colabkit.datasets.archives.remarks import Remarks
from colabkit.datasets.archives.zip_members import ZipLayout, plan_zip
from colabkit.datasets.reading.source import Source
from colabkit.storage import hash_of

_END_BLOCK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What an archive holds.

    ``nbytes`` and ``n_files`` are None, and ``files`` is empty, where only reading the archive
    tells, as with a tar. ``digest`` changes when any member does. ``names`` are the members as
    the package knows them that reads a 7z or a rar, ``times`` when they were changed.
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
    wanted: Wanted | None = None
    layout: ZipLayout | None = None
    names: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    remarks: Remarks = field(default_factory=Remarks)
    encoding: str | None = None


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
    limits = limits or Limits()
    wanted = chosen(members)
    kind = kind_of(source)
    remarks = Remarks()
    if kind is ArchiveKind.ZIP:
        parts = plan_zip(source, wanted, limits, password, remarks, encoding)
        return Plan(
            kind=kind,
            files=parts.files,
            nbytes=int(parts.files.nbytes.sum()),
            n_files=len(parts.files) + len(parts.links.to_files),
            digest=parts.digest,
            limits=limits,
            archive_bytes=source.nbytes,
            folders=parts.folders,
            links=parts.links,
            wanted=wanted,
            layout=parts.layout,
            remarks=remarks,
        )
    if not kind.is_tar:
        # Loaded for these alone, as what unpacks each kind is.
        from colabkit.datasets.archives.adapters import plan_rar
        from colabkit.datasets.archives.seven_zip import plan_7z

        plan_listed = plan_7z if kind is ArchiveKind.SEVEN_ZIP else plan_rar
        listed = plan_listed(source, wanted, limits, password, remarks)
        return Plan(
            kind=kind,
            files=listed.files,
            nbytes=int(listed.files.nbytes.sum()),
            n_files=len(listed.files),
            digest=listed.digest,
            limits=limits,
            archive_bytes=source.nbytes,
            folders=listed.folders,
            wanted=wanted,
            names=listed.names,
            times=listed.times,
            remarks=remarks,
        )
    return Plan(
        kind=kind,
        files=(),
        nbytes=None,
        n_files=None,
        digest=_digest_of_ends(source),
        limits=limits,
        archive_bytes=source.nbytes,
        wanted=wanted,
        remarks=remarks,
        encoding=encoding,
    )


def _digest_of_ends(source: Source) -> str:
    """Returns a hash of the size and of the first and last blocks."""
    first = source.read(0, _END_BLOCK_BYTES)
    last = source.read(max(0, source.nbytes - _END_BLOCK_BYTES), _END_BLOCK_BYTES)
    return hash_of(first, last, str(source.nbytes).encode())
