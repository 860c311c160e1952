"""Which files somebody has open for writing right now."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

_PROCESSES = Path("/proc")


@dataclasses.dataclass(frozen=True, slots=True)
class Writers:
    """What was found among the processes of this machine.

    Attributes:
        paths: Files in the folder that are open for writing, by their path in it.
        sees_all: Whether every process could be looked into.
    """

    paths: frozenset[str]
    sees_all: bool


def writers_in(folder: Path) -> Writers:
    """Returns which files of a folder are open for writing in any process."""
    prefix = os.path.realpath(folder) + os.sep
    found: set[str] = set()
    sees_all = _PROCESSES.joinpath("self/fd").is_dir()
    for process in _processes():
        try:
            with os.scandir(process.path + "/fd") as inside:
                descriptors = [each.path for each in inside]
        except PermissionError:
            sees_all = False
            continue
        except OSError:
            continue  # it has ended
        for descriptor in descriptors:
            path = _written_by(descriptor, prefix)
            if path is not None:
                found.add(path)
    return Writers(frozenset(found), sees_all)


def _processes() -> list[os.DirEntry[str]]:
    try:
        with os.scandir(_PROCESSES) as entries:
            return [entry for entry in entries if entry.name.isdigit()]
    except OSError:
        return []


def _written_by(descriptor: str, prefix: str) -> str | None:
    try:
        # A look at thousands of descriptors: paths as text, no objects.
        target = os.readlink(descriptor)  # noqa: PTH115
        if not target.startswith(prefix):
            return None
        info = Path(descriptor.replace("/fd/", "/fdinfo/")).read_text()
    except OSError:
        return None
    flags = next((line for line in info.splitlines() if line.startswith("flags:")), "flags: 0")
    is_written = int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return target.removeprefix(prefix).replace(os.sep, "/") if is_written else None
