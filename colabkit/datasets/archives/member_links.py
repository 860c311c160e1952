"""Where an archive's links lead: followed on paper before any is made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from colabkit.datasets.archives.members import Link
from colabkit.errors import ArchiveUnsafeError

LINK_BYTES_MAX = 4096
_STEPS_MAX = 4000
_HINT = "Leave it out with members=, or pack the files themselves."


@dataclass(frozen=True, slots=True)
class Resolved:
    """Links by what they end at: a file becomes a second name of it, a folder stays a link.

    ``left_out`` are those that lead outside, in a circle or to nothing.
    """

    to_files: tuple[Link, ...] = ()
    to_folders: tuple[Link, ...] = ()
    left_out: tuple[str, ...] = ()


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
            raise _unsafe(folder, targets[folder], "has members below it, written through it")


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


def _unsafe(path: str, target: str, why: str) -> ArchiveUnsafeError:
    message = f"Member {path!r} is a link to {target!r}, which {why}."
    return ArchiveUnsafeError(message, member=path, hint=_HINT)
