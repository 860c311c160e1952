"""Which member names may become paths, and which members are left out."""

from __future__ import annotations

import itertools
import re
import stat
import string
from collections.abc import Iterable

from colabkit.datasets.archives.member_selection import Wanted
from colabkit.datasets.archives.remarks import Remark, Remarks
from colabkit.errors import ArchiveUnsafeError

_NAME_BYTES_MAX = 255
_PATH_BYTES_MAX = 4000
_PARTS_MAX = 250
# Short ASCII names without anything to look at twice: nearly all of them.
_PLAIN = re.compile(
    r"(?:[\w @+=,()\[\]-][\w @+=,()\[\].-]{0,99}/){0,9}[\w @+=,()\[\]-][\w @+=,()\[\].-]{0,99}",
    re.ASCII,
)
_EXECUTABLE = 0o111
# In lower case: what macOS, Windows and Jupyter leave in folders.
_JUNK_NAMES = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx", ".ipynb_checkpoints"})
_APPLE_DOUBLE = "._"
_PLAIN_BYTES = (string.ascii_letters + string.digits + " _@+=,()[].-/\n").encode()
_JUNK_BYTES = (b"__macosx", b"thumbs.db", b"desktop.ini")


def member_path(name: str) -> tuple[str, Remark | None]:
    """Returns a member's name as a relative path, "" for the top folder itself, and what it took.

    Raises:
        ArchiveUnsafeError: It leads outside.
    """
    plain = name.removeprefix("./")
    if _PLAIN.fullmatch(plain):
        return plain, None
    if "\0" in name:
        raise _unsafe(name, "has a NUL byte in its name")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    inside = list(itertools.dropwhile(lambda part: part == "..", parts))
    if name.startswith("/") and ".." in inside:
        # As GNU tar does: an absolute path counts from where it climbs last.
        inside = inside[len(inside) - inside[::-1].index("..") :]
    if ".." in inside:
        raise _unsafe(name, "leads outside through '..'")
    try:
        sizes = [len(part.encode()) for part in inside]
    except UnicodeEncodeError as error:
        raise _unsafe(name, "has a name that is not text") from error
    remark = Remark.STRIPPED if name.startswith("/") or len(inside) < len(parts) else None
    too_deep = sum(sizes) + len(sizes) > _PATH_BYTES_MAX or len(inside) > _PARTS_MAX
    if too_deep or any(size > _NAME_BYTES_MAX for size in sizes):
        remark = Remark.TOO_LONG
    return "/".join(inside), remark


def placed(name: str, wanted: Wanted | None, remarks: Remarks) -> str | None:
    """Returns where a member belongs, None for one that is not taken.

    Only what was asked for is judged: an unsafe name that is not wanted harms nobody.

    Raises:
        ArchiveUnsafeError: It leads outside.
    """
    try:
        path, remark = member_path(name)
    except ArchiveUnsafeError:
        if wanted is not None and not wanted(name):
            return None
        raise
    if not path or is_junk(path) or (wanted is not None and not wanted(path)):
        return None
    if remark is None:
        return path
    if remark is Remark.TOO_LONG:
        remarks.add(remark, f"{path[:60]}…")
        return None
    remarks.add(remark, name)
    return path


def all_plain(lines: bytes) -> bool:
    """Whether names need no second look: all are safe, as they are, and none is junk.

    Args:
        lines: The names, none over 255 bytes, each with a line end behind it.
    """
    if lines.translate(None, _PLAIN_BYTES) or lines.startswith((b"/", b".", b"\n")):
        return False
    lowered = lines.lower()
    if any(text in lowered for text in _JUNK_BYTES):
        return False
    return not any(text in lines for text in (b"\n/", b"\n.", b"\n\n", b"//", b"/\n", b"/.", b".."))


def is_junk(path: str) -> bool:
    """Whether a path is what a desktop or a notebook leaves behind, or lies in such a folder.

    Example:
        >>> is_junk("__MACOSX/a/._1.jpg"), is_junk("a/.DS_Store"), is_junk("a/1.jpg")
        (True, True, False)
    """
    return any(map(is_junk_name, path.split("/")))


def is_junk_name(name: str) -> bool:
    """Whether a file or folder of this name is never part of a dataset."""
    return name.lower() in _JUNK_NAMES or name.startswith(_APPLE_DOUBLE)


def check_mode(name: str, mode: int) -> None:
    """Raises for devices, pipes, sockets and for programs that run as their owner.

    Of a file that is no program, such a bit is a shared folder's habit; it is not kept.

    Args:
        name: The member.
        mode: Its Unix mode with the type's bits; no type counts as a regular file.
    """
    kind = stat.S_IFMT(mode)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
        raise _unsafe(name, "is a device, a pipe or a socket")
    if kind in {0, stat.S_IFREG} and mode & (stat.S_ISUID | stat.S_ISGID) and mode & _EXECUTABLE:
        raise _unsafe(name, "is a program with a setuid or setgid bit")


def parents(path: str) -> Iterable[str]:
    """Yields the folders above a path, the nearest first.

    Example:
        >>> list(parents("a/b/c"))
        ['a/b', 'a']
    """
    while (cut := path.rfind("/")) > 0:
        path = path[:cut]
        yield path


def _unsafe(name: str, why: str) -> ArchiveUnsafeError:
    message = f"Member {name!r} {why}: the archive is not unpacked."
    hint = 'Leave it out with members="!NAME", or pack the data again from inside its folder.'
    return ArchiveUnsafeError(message, member=name, hint=hint)
