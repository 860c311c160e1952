"""Whether a file is to be unpacked or copied: by its suffix, or by its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from colabkit.datasets.archives.kinds import ArchiveKind, kind_of
from colabkit.datasets.reading.source import Source
from colabkit.errors import ArchiveCorruptError

_HEAD_BYTES = 64 << 10
# A bzip2 gives nothing before its first block is whole.
_BZ2_HEAD_BYTES = 1 << 20
_BLOCK_BYTES = 512
_LOCAL_BYTES = 30

ARCHIVE_SUFFIXES = frozenset(
    f".{name}"
    for names in (
        ("zip", "tar", "7z", "rar", "tgz", "tbz", "tbz2", "txz", "tzst"),
        ("gz", "bz2", "xz", "zst", "lz4", "lzma", "tlz"),
    )
    for name in names
)
# Zips, tars or gzips inside, and read whole by the programs that they belong to.
WHOLE_SUFFIXES = frozenset(
    f".{name}"
    for names in (
        ("npz", "pt", "pth", "ptl", "pte", "ckpt", "keras", "mar", "nemo", "task", "tflite"),
        ("xlsx", "xlsm", "xlsb", "docx", "pptx", "ods", "odt", "odp", "epub", "kmz", "usdz", "3mf"),
        ("jar", "war", "aar", "apk", "ipa", "whl", "egg", "nupkg", "vsix", "sb3", "mlmodel"),
        ("pkl", "pickle", "joblib", "mat", "rds", "rda", "svgz", "skops"),
    )
    for name in names
)
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
    (0, b"MSCF\0\0\0\0", "a cabinet file"),
    (0, b"xar!", "a xar archive"),
    (0x8001, b"CD001", "a CD image"),
)
_PROGRAMS = (b"MZ", b"\x7fELF", b"#!")
_IN_PROGRAMS = ((b"7z\xbc\xaf\x27\x1c\0", "a 7z"), (b"Rar!\x1a\x07", "a rar"))
_PROGRAM_BYTES = 1 << 20
_WHOLE_FIRST_MEMBERS = (b"[Content_Types].xml", b"META-INF/", b"mimetype")
_WHOLE_FIRST_ENDS = (b"/data.pkl", b".npy")


def stem_of(name: str) -> str:
    """Returns an archive's name without its suffixes.

    Example:
        >>> stem_of("n01440764.tar.gz"), stem_of("v1.0.zip")
        ('n01440764', 'v1.0')
    """
    stem = name
    while suffix_of(stem) in ARCHIVE_SUFFIXES and PurePosixPath(stem).stem:
        stem = PurePosixPath(stem).stem
    return stem if stem != name else f"{name}.d"


def suffix_of(path: str) -> str:
    """Returns a path's last suffix in lower case, with its dot.

    Example:
        >>> suffix_of("MyDrive/Train.NPZ")
        '.npz'
    """
    return PurePosixPath(path).suffix.lower()


def is_to_be_unpacked(path: str, source: Source) -> bool:
    """Whether a file is an archive of files, and no file of another kind that is packed inside."""
    return suffix_of(path) not in WHOLE_SUFFIXES and holds_archive(source)


def holds_archive(source: Source) -> bool:
    """Whether a file is an archive; a packed file that is no tar, as ``.csv.gz``, is none."""
    try:
        kind = kind_of(source)
        if kind is ArchiveKind.ZIP:
            return not _is_read_whole(source)
        if not kind.is_tar:
            return True
        from colabkit.datasets.archives.tar_stream import unpacked_pieces  # a zip needs no tar

        head_bytes = _BZ2_HEAD_BYTES if kind is ArchiveKind.TAR_BZ2 else _HEAD_BYTES
        head = source.read(0, min(head_bytes, source.nbytes))
        first = b"".join(_first_pieces(unpacked_pieces(kind, iter([head]))))
        return kind_of(_Bytes(first)).is_tar
    except ArchiveCorruptError:
        return False


def unread_archive(source: Source) -> str:
    """Returns what an archive is that is not read here, "" for anything else."""
    for where, magic, what in _UNREAD:
        if source.read(where, len(magic)) == magic:
            return what
    if source.read(0, max(map(len, _PROGRAMS))).startswith(_PROGRAMS):
        program = source.read(0, min(_PROGRAM_BYTES, source.nbytes))
        for magic, what in _IN_PROGRAMS:
            if magic in program:
                return f"a program that unpacks {what}"
    return ""


def _is_read_whole(source: Source) -> bool:
    """Whether a zip's first member is that of a model, an office document or a program."""
    if suffix_of(source.name) in ARCHIVE_SUFFIXES:
        return False
    head = source.read(0, _LOCAL_BYTES + 256)
    name = head[_LOCAL_BYTES : _LOCAL_BYTES + int.from_bytes(head[26:28], "little")]
    return name.startswith(_WHOLE_FIRST_MEMBERS) or name.endswith(_WHOLE_FIRST_ENDS)


def _first_pieces(pieces: Iterator[bytes]) -> Iterator[bytes]:
    nbytes = 0
    for piece in pieces:
        yield bytes(piece)
        nbytes += len(piece)
        # Not to the end: a head that was cut off unpacks up to there, and then fails.
        if nbytes >= _BLOCK_BYTES:
            return


class _Bytes:
    name = "the first bytes"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.nbytes = len(data)
        self.starts: tuple[int, ...] = (0,)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self._data[offset : offset + nbytes]

    def close(self) -> None:
        """Holds nothing."""
