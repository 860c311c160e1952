"""What other programs make of an archive, and whether ours is one of their answers."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PROGRAMS = {
    ".zip": {
        "unzip": ["unzip", "-qo", "{archive}"],
        "bsdtar": ["bsdtar", "-xf", "{archive}"],
        "7z": ["7z", "x", "-y", "{archive}"],
    },
    ".tar": {
        "tar": ["tar", "--warning=none", "-xf", "{archive}"],
        "bsdtar": ["bsdtar", "-xf", "{archive}"],
    },
    ".7z": {"7z": ["7z", "x", "-y", "{archive}"], "bsdtar": ["bsdtar", "-xf", "{archive}"]},
}
# Left out by design, and said to be: what desktops and notebooks leave in folders.
_JUNK = re.compile(
    r"(^|/)(\._[^/]*|\.DS_Store|Thumbs\.db|desktop\.ini|__MACOSX|\.ipynb_checkpoints)(/|$)",
    re.IGNORECASE,
)
_UNSEEN = re.compile("[\0-\x1f\x7f]")
# What is refused though some program takes it, each by name: dangers, and what would lose data.
DANGERS = (
    "setuid or setgid",
    "device, a pipe or a socket",
    "is a device or a pipe",
    "written through it",
    "overlaps the next one",
    "reaches into the next one",
    "is both a file and a folder",
    "is a hard link to",
    "py7zr does not master",
    "as where its last part is missing",
)


class Entry(NamedTuple):
    """A file or a folder (without content) that was made."""

    content: bytes | None
    executable: bool = False
    time_s: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """What a program made, and whether it was content with the archive."""

    entries: Mapping[str, Entry]
    emptied: Collection[str]
    is_content: bool
    said: str = ""


def judged_by(archive: Path, suffix: str, outer: Path) -> dict[str, Made]:
    """Has every program at hand unpack an archive, each into a folder of its own."""
    programs = PROGRAMS[".tar" if ".tar" in suffix else suffix]
    made = {}
    for name, command in programs.items():
        if shutil.which(name) is None:
            continue
        into = outer / name
        into.mkdir()
        done = subprocess.run(
            [part.format(archive=archive) for part in command],
            cwd=into,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        # unzip's 1 is a warning.
        is_content = done.returncode in {0, 1 if name == "unzip" else 0}
        made[name] = Made(*entries_in(into), is_content, done.stdout.decode("utf-8", "replace"))
    return made


def entries_in(folder: Path) -> tuple[dict[str, Entry], set[str]]:
    """Returns everything in a folder, links as what they lead to if that lies in it too.

    And the folders of what is left out by design: they may be made or not.
    """
    found: dict[str, Entry] = {}
    left: set[str] = set()
    root = Path(os.path.realpath(folder))
    for path in root.rglob("*"):
        inner = path.relative_to(root).as_posix()
        entry = _entry(path, root)
        if entry is None or _JUNK.search(inner):
            left.add(inner)
        else:
            found[inner] = entry
    return found, {path[:at] for path in left for at, c in enumerate(path) if c == "/"}


def _entry(path: Path, root: Path) -> Entry | None:
    if path.is_symlink():
        end = Path(os.path.realpath(path))
        if root not in end.parents or end in path.parents:
            return None
    try:
        status = path.stat()
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return Entry(None)
    if not stat.S_ISREG(status.st_mode):
        return None
    return Entry(path.read_bytes(), bool(status.st_mode & 0o111), int(status.st_mtime) & ~1)


def differences(ours: Path, theirs: Mapping[str, Made], said: str) -> list[str]:
    """Returns where ours is nobody's answer: each path is to be as one program has it.

    Args:
        ours: The folder that was made.
        theirs: What others made.
        said: What was said of it: what is taken under another name than it has is named there.
    """
    mine, _ = entries_in(ours)
    judges = [each.entries for each in theirs.values()]
    emptied = {path for each in theirs.values() for path in each.emptied}
    out = []
    for path in sorted(mine.keys() | {path for entries in judges for path in entries}):
        answers = [entries.get(path) for entries in judges]
        if "unzip" in theirs:
            # It leaves out of a name what is no character to be seen.
            answers.append(theirs["unzip"].entries.get(_UNSEEN.sub("", path)))
        own = mine.get(path)
        if own in answers or (own is not None and path in said):
            continue
        has_left_out = path in emptied or f"{path}/" in said
        if has_left_out and own in {None, Entry(None)}:
            continue
        told = ", ".join(f"{name} {_shown(a)}" for name, a in zip(theirs, answers, strict=False))
        out.append(f"{path!r}: ours {_shown(own)}, {told}")
    return out


def is_named(error: BaseException, theirs: Mapping[str, Made]) -> bool:
    """Whether a refusal is one: a danger that it names, or what no two programs take alike."""
    if any(danger in str(error) for danger in DANGERS):
        return True
    accepted = [made.entries for made in theirs.values() if made.is_content]
    return len(accepted) < len(theirs) or any(each != accepted[0] for each in accepted)


def _shown(entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    if entry.content is None:
        return "a folder"
    mark = " x" if entry.executable else ""
    return f"{len(entry.content)} bytes {entry.content[:6]!r}{mark} at {entry.time_s}"


def told(theirs: Mapping[str, Made]) -> Sequence[str]:
    """Returns what the programs were not content with."""
    return [f"{name}: {made.said[-300:]}" for name, made in theirs.items() if not made.is_content]
