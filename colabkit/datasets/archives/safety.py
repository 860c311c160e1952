"""Which members are unpacked and as what paths, where links lead, and what counts as a bomb."""

from __future__ import annotations

import fnmatch
import itertools
import re
import stat
import string
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from colabkit.datasets.archives.members import Column, Link, Remark, Remarks
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
_LINK_BYTES_MAX = 4096
_LINKS_MAX = 100_000
_STEPS_MAX = 4000
_HINT = "Leave it out with members=, or pack the files themselves."
MemberSelection = Callable[[str], bool]
_RAISE = "Pass Limits with a larger {} if you trust where it comes from."


def member_path(name: str, *, as_tar: bool = False) -> tuple[str, Remark | None]:
    """Returns a member's name as a relative path, "" for the top folder itself, and what it took.

    Args:
        name: The name.
        as_tar: Take ".." behind a folder as tar does, which refuses it, or strips all up to it from
            an absolute path; else as unzip and 7z do, which pass over it.

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
    remark = Remark.STRIPPED if name.startswith("/") or len(inside) < len(parts) else None
    if as_tar and name.startswith("/") and ".." in inside:
        inside = inside[len(inside) - inside[::-1].index("..") :]
    if ".." in inside:
        if _climbs_out(inside):
            raise _unsafe(name, "leads outside through '..'")
        if as_tar:
            raise _unsafe(name, "has '..' behind a folder, which tar refuses too")
        inside, remark = [part for part in inside if part != ".."], Remark.CLIMBS
    try:
        sizes = [len(part.encode()) for part in inside]
    except UnicodeEncodeError as error:
        raise _unsafe(name, "has a name that is not text") from error
    too_deep = sum(sizes) + len(sizes) > _PATH_BYTES_MAX or len(inside) > _PARTS_MAX
    if too_deep or any(size > _NAME_BYTES_MAX for size in sizes):
        remark = Remark.TOO_LONG
    return "/".join(inside), remark


def _climbs_out(parts: Iterable[str]) -> bool:
    """Whether a path leads above where it begins."""
    depths = itertools.accumulate(-1 if part == ".." else 1 for part in parts)
    return any(depth < 0 for depth in depths)


def placed(
    name: str, wanted: MemberSelection | None, remarks: Remarks, *, as_tar: bool = False
) -> str | None:
    """Returns where a member belongs, None for one that is not taken.

    Only what was asked for is judged: an unsafe name that is not wanted harms nobody.

    Raises:
        ArchiveUnsafeError: It leads outside.
    """
    try:
        path, remark = member_path(name, as_tar=as_tar)
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


@dataclass(frozen=True, slots=True)
class Resolved:
    """Links by what they end at: a file becomes a second name of it, a folder stays a link.

    ``left_out`` are those that lead outside, in a circle or to nothing.
    """

    to_files: tuple[Link, ...] = ()
    to_folders: tuple[Link, ...] = ()
    left_out: tuple[str, ...] = ()


def check_link(path: str, nbytes: int, links_before: int) -> None:
    """Raises for a link of a long text, and for one of too many."""
    if nbytes > _LINK_BYTES_MAX or links_before >= _LINKS_MAX:
        message = f"Member {path!r} is a link of {nbytes:,} bytes, or one of too many."
        raise ArchiveUnsafeError(message, member=path, hint="Pack the files themselves.")


def resolve(targets: Mapping[str, str], files: Sequence[str], folders: Collection[str]) -> Resolved:
    """Follows every link as the kernel would.

    Args:
        targets: What each link says, relative to the folder it lies in.
        files: The archive's regular files.
        folders: The archive's folders.

    Raises:
        ArchiveUnsafeError: A member lies below a link.
    """
    if not targets:
        return Resolved()
    _check_below(targets, folders)
    ends = {path: _follow(path, targets) for path in targets}
    found = set(ends.values()).intersection(files)
    to_files: list[Link] = []
    to_folders: list[Link] = []
    left_out: list[str] = []
    for path, end in ends.items():
        if end is not None and end in found:
            to_files.append(Link(path, end))
        elif end and end in folders and not path.startswith(f"{end}/"):
            to_folders.append(Link(path, end))
        else:
            left_out.append(path)
    return Resolved(tuple(to_files), tuple(to_folders), tuple(left_out))


def _check_below(targets: Mapping[str, str], folders: Iterable[str]) -> None:
    for folder in folders:
        if folder in targets:
            raise _unsafe_link(folder, targets[folder], "has members below it, written through it")


def _follow(path: str, targets: Mapping[str, str]) -> str | None:
    """Returns the path within the archive where a link ends, None where it leads elsewhere."""
    here: list[str] = []
    left = path.split("/")[::-1]
    for _ in range(_STEPS_MAX):
        if not left:
            return "/".join(here)
        part = left.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not here:
                return None
            here.pop()
            continue
        here.append(part)
        target = targets.get("/".join(here))
        if target is not None:
            if target.startswith("/") or "\0" in target or not target:
                return None
            here.pop()
            left += target.split("/")[::-1]
    return None


def _unsafe_link(path: str, target: str, why: str) -> ArchiveUnsafeError:
    message = f"Member {path!r} is a link to {target!r}, which {why}."
    return ArchiveUnsafeError(message, member=path, hint=_HINT)


def chosen(members: Callable[[str], bool] | Sequence[str] | None) -> MemberSelection | None:
    """Returns a function that says whether a path was asked for, None for all.

    Example:
        >>> wanted = chosen(["train/*", "!*.tmp"])
        >>> wanted("train/1.jpg"), wanted("train/1.tmp"), wanted("val/1.jpg")
        (True, False, False)
        >>> chosen("./donn\u00e9es")("donne\u0301es/1.jpg")
        True
    """
    if members is None or callable(members):
        return members
    patterns = [members] if isinstance(members, str) else list(members)
    included = [pattern for pattern in patterns if not pattern.startswith("!")]
    excluded = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    takes, leaves = _matcher(included), _matcher(excluded)

    def wanted(path: str) -> bool:
        return (not included or takes(path)) and not leaves(path)

    return wanted if excluded else takes


def _matcher(patterns: Sequence[str]) -> MemberSelection:
    exact = set(map(_asked, patterns))
    below = tuple(f"{pattern}/" for pattern in exact)
    globs = [glob for pattern in exact for glob in _globs(pattern)]

    def matches(path: str) -> bool:
        path = _composed(path)
        if path in exact or path.startswith(below):
            return True
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in globs)

    return matches


def unanswered(members: Sequence[str], paths: Iterable[str]) -> list[str]:
    """Returns those of the names and patterns asked for that no path answers to.

    Example:
        >>> unanswered(["train", "val/*"], ["train/cat.jpg"])
        ['val/*']
    """
    left = {_asked(name) for name in members if not name.startswith("!")}
    globs = {name for name in left if _globs(name)}
    for path in map(_composed, paths):
        if not left:
            break
        answered = {
            name for name in globs if any(fnmatch.fnmatchcase(path, g) for g in _globs(name))
        }
        globs -= answered
        left -= answered
        while path:
            left.discard(path)
            path = path.rpartition("/")[0]
    return [name for name in members if _asked(name) in left]


def _asked(name: str) -> str:
    """Returns a name or pattern as the paths that it is compared with."""
    return _composed(name.removeprefix("./").strip("/"))


def _composed(path: str) -> str:
    """Returns a path with its accents as one types them: macOS writes them apart from letters."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _globs(name: str) -> list[str]:
    """Returns the patterns that a name means; brackets may be ones of a folder's name."""
    if not any(c in name for c in "*?["):
        return []
    return [name, name.replace("[", "[[]")] if "[" in name else [name]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what an archive may unpack to; raise one to allow an unusual archive.

    Args:
        total_bytes: The most that all members together may unpack to.
        ratio: The most unpacked bytes for each byte of the archive.
        ratio_free_bytes: Up to this much is unpacked whatever its ratio.
        files: The most members.
        empty_files: The most members without content.
        case_clashes: Allow names that differ in case only, though the disk seems to take them
            for one.

    Example:
        >>> Limits(ratio=2000).ratio
        2000
    """

    total_bytes: int = 1 << 40
    ratio: int = 200
    ratio_free_bytes: int = 1 << 30
    files: int = 5_000_000
    empty_files: int = 100_000
    case_clashes: bool = False

    def check_bytes(self, unpacked_bytes: int, archive_bytes: int, *, member: str = "") -> None:
        """Raises where the unpacked size is out of proportion."""
        if unpacked_bytes > self.total_bytes:
            message = (
                f"The archive unpacks to more than {self.total_bytes:,} bytes "
                f"({unpacked_bytes:,} so far)."
            )
            raise ArchiveUnsafeError(message, member=member, hint=_RAISE.format("total_bytes"))
        if unpacked_bytes > max(self.ratio_free_bytes, self.ratio * archive_bytes):
            message = (
                f"{archive_bytes:,} bytes of archive unpack to {unpacked_bytes:,}, "
                f"more than {self.ratio} for each: it looks like a bomb."
            )
            raise ArchiveUnsafeError(message, member=member, hint=_RAISE.format("ratio"))

    def check_counts(self, files: int, empty_files: int, *, member: str = "") -> None:
        """Raises where there are too many members."""
        if files > self.files:
            message = f"The archive has {files:,} members, more than {self.files:,}."
            raise ArchiveUnsafeError(message, member=member, hint=_RAISE.format("files"))
        if empty_files > self.empty_files:
            message = (
                f"The archive has {empty_files:,} members without content, "
                f"more than {self.empty_files:,}: it looks like a bomb."
            )
            raise ArchiveUnsafeError(message, member=member, hint=_RAISE.format("empty_files"))

    def check_table(self, paths: Sequence[str], nbytes: Column[int], archive_bytes: int) -> None:
        """Raises where all members together are too much."""
        if not len(paths):
            return
        largest = max(nbytes)
        member = paths[nbytes.index(largest)]
        self.check_bytes(largest, archive_bytes, member=member)
        self.check_bytes(sum(nbytes), archive_bytes, member=member)
        empty = nbytes.count(0)
        first_empty = paths[nbytes.index(0)] if empty else ""
        self.check_counts(len(paths), empty, member=first_empty)
