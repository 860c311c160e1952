"""Which member names may become paths, and which members are left out."""

from __future__ import annotations

import re
import stat
import string
from collections.abc import Iterable

from colabkit.errors import ArchiveUnsafeError

_NAME_BYTES_MAX = 255
_PATH_BYTES_MAX = 4000
_PARTS_MAX = 250
# Short ASCII names without anything to look at twice: nearly all of them.
_PLAIN = re.compile(
    r"(?:[\w @+=,()\[\]-][\w @+=,()\[\].-]{0,99}/){0,9}[\w @+=,()\[\]-][\w @+=,()\[\].-]{0,99}",
    re.ASCII,
)
_DRIVE = re.compile(r"[A-Za-z]:")
_JUNK_NAMES = frozenset({".DS_Store", "Thumbs.db"})
_JUNK_FOLDER = "__MACOSX"
_PLAIN_BYTES = (string.ascii_letters + string.digits + " _@+=,()[].-/\n").encode()
_JUNK_BYTES = (b"__MACOSX", b"Thumbs.db")


def safe_path(name: str) -> str:
    """Returns a member's name as a relative path, "" for the top folder itself.

    Raises:
        ArchiveUnsafeError: It leads outside, or no file system can hold it.
    """
    plain = name.removeprefix("./")
    if _PLAIN.fullmatch(plain):
        return plain
    if "\0" in name:
        raise _unsafe(name, "has a NUL byte in its name")
    if name.startswith("/"):
        raise _unsafe(name, "has an absolute path")
    if "\\" in name:
        raise _unsafe(name, "has a backslash in its name")
    if _DRIVE.match(name):
        raise _unsafe(name, "starts with a drive letter")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise _unsafe(name, "leads outside through '..'")
    _check_lengths(name, parts)
    return "/".join(parts)


def all_plain(lines: bytes) -> bool:
    """Whether names need no second look: all are safe, as they are, and none is junk.

    Args:
        lines: The names, none over 255 bytes, each with a line end behind it.
    """
    if lines.translate(None, _PLAIN_BYTES) or lines.startswith((b"/", b".", b"\n")):
        return False
    return not any(
        text in lines
        for text in (b"\n/", b"\n.", b"\n\n", b"//", b"/\n", b"/.", b"..", *_JUNK_BYTES)
    )


def is_junk(path: str) -> bool:
    """Whether a path is what a desktop leaves behind: __MACOSX, .DS_Store, Thumbs.db."""
    if path.rpartition("/")[2] in _JUNK_NAMES:
        return True
    return _JUNK_FOLDER in path and _JUNK_FOLDER in path.split("/")


def check_mode(name: str, mode: int) -> None:
    """Raises for devices, pipes, sockets and for programs that run as their owner.

    Args:
        name: The member.
        mode: Its Unix mode with the type's bits; no type counts as a regular file.
    """
    kind = stat.S_IFMT(mode)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
        raise _unsafe(name, "is a device, a pipe or a socket")
    if kind in {0, stat.S_IFREG} and mode & (stat.S_ISUID | stat.S_ISGID):
        raise _unsafe(name, "has a setuid or setgid bit")


def parents(path: str) -> Iterable[str]:
    """Yields the folders above a path, the nearest first.

    Example:
        >>> list(parents("a/b/c"))
        ['a/b', 'a']
    """
    while (cut := path.rfind("/")) > 0:
        path = path[:cut]
        yield path


def _check_lengths(name: str, parts: list[str]) -> None:
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError as error:
        raise _unsafe(name, "has a name that is not text") from error
    if any(size > _NAME_BYTES_MAX for size in sizes):
        raise _unsafe(name[:80] + "…", f"has a name over {_NAME_BYTES_MAX} bytes")
    if sum(sizes) + len(sizes) > _PATH_BYTES_MAX or len(parts) > _PARTS_MAX:
        raise _unsafe(name[:80] + "…", f"has a path over {_PATH_BYTES_MAX} bytes")


def _unsafe(name: str, why: str) -> ArchiveUnsafeError:
    message = f"Member {name!r} {why}: the archive is not unpacked."
    hint = "Leave it out with members=, or pack the data again from inside its folder."
    return ArchiveUnsafeError(message, member=name, hint=hint)
