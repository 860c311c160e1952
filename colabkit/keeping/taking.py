"""Decides what of a kept folder goes into the next version, and takes it."""

from __future__ import annotations

import dataclasses
import errno
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from pathlib import Path

from colabkit.errors import ColabKitError
from colabkit.keeping.held import Held, is_checkpoint, links_to_keep, newest_mtime_ns
from colabkit.keeping.looking import Look, Stamp, look_at
from colabkit.keeping.open_files import Writers, writers_in
from colabkit.keeping.publishing import Change
from colabkit.keeping.settling import Settling, Unit, called, kinds_of
from colabkit.keeping.staging import SMALL_BYTES, ChangedError, StagingArea, Taken
from colabkit.keeping.units import by_unit, signed_folders, unit_of
from colabkit.keeping.version import Content

# Old checkpoints wait for the next version: the newest is not to arrive with the last of them.
_VERSION_BYTES = 200_000_000
_TRIES = 4
_POINTER_BYTES = 1024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True, slots=True)
class Pending:
    """What a look found to be new.

    Attributes:
        look: The look.
        units: What changed, the newest first.
        gone: Paths that are not there any more, and may go.
        is_link_new: Whether a link leads elsewhere.
        saved_s: When it was, in seconds since the epoch.
    """

    look: Look
    units: tuple[Unit, ...]
    gone: frozenset[str]
    is_link_new: bool
    saved_s: float

    @property
    def is_empty(self) -> bool:
        """Whether all is as it was."""
        return not (self.units or self.gone or self.is_link_new)


@dataclasses.dataclass(slots=True)
class Taker:
    """Looks at one folder and takes what is new in it.

    Attributes:
        folder: The kept folder.
        area: Where files are staged.
        whole: What folders that count as a whole are called.
        skip: What is left out.
        baseline: What was here before and is not kept until it changes.
        stamps: The stamps of what the newest version holds.
        objections: Why units were not taken the last time.
    """

    folder: Path
    area: StagingArea
    whole: tuple[str, ...]
    skip: tuple[str, ...]
    baseline: Mapping[str, Stamp]
    stamps: dict[str, Stamp]
    clock: Callable[[], float] = time.monotonic
    objections: dict[str, str] = dataclasses.field(default_factory=dict)
    _settling: Settling = dataclasses.field(init=False)
    _grouped: tuple[Held, dict[str, dict[str, Content]]] | None = None

    def __post_init__(self) -> None:
        self._settling = Settling(self.folder, self.clock)

    def look(self, held: Held) -> Pending:
        """Returns what is new since what a version holds."""
        saved_s = time.time()
        look = look_at(self.folder, self.skip)
        stamps, baseline = self.stamps, self.baseline
        new = [
            path
            for path, stamp in look.files.items()
            if stamps.get(path) != stamp and baseline.get(path) != stamp
        ]
        missing = held.contents.keys() - look.files.keys()
        self._note_signs([*new, *missing])
        # Most looks find nothing: grouping thousands of files would hold the trainer up for it.
        units = by_unit(look.files, self.whole) if new or missing else {}
        names = by_unit(dict.fromkeys((*new, *missing)), self.whole)
        changed = {name: Unit(name, units[name]) for name in names if name in units}
        self._settling.note(changed)
        gone = self._gone(names.keys() - units.keys(), held)
        newest_first = sorted(changed.values(), key=lambda unit: unit.mtime_ns, reverse=True)
        links = held.links if look.links == held.links else self._links(look, held.contents, held)
        return Pending(look, tuple(newest_first), gone, links != held.links, saved_s)

    def _note_signs(self, paths: Iterable[str]) -> None:
        found = [each for each in signed_folders(paths) if each not in self.whole]
        if found:
            self.whole = (*self.whole, *found)
            self._grouped = None

    def _links(self, look: Look, contents: Collection[str], held: Held) -> Mapping[str, str]:
        return links_to_keep(look.links, [*contents, *self.baseline], held.links)

    def _known(self, held: Held) -> dict[str, dict[str, Content]]:
        """Returns what a version holds by unit; made once for each version."""
        if self._grouped is None or self._grouped[0] is not held:
            self._grouped = (held, by_unit(held.contents, self.whole))
        return self._grouped[1]

    def _gone(self, removed: Set[str], held: Held) -> frozenset[str]:
        """Returns the files of removed units; a checkpoint goes once a newer one is beside it."""
        known = self._known(held)
        waiting = {name for name in removed if is_checkpoint(name, known[name])}
        newest: dict[str, int] = {}
        for name, files in known.items() if waiting else ():
            if name not in removed and is_checkpoint(name, files):
                above = name.rpartition("/")[0]
                newest[above] = max(newest.get(above, 0), newest_mtime_ns(files))
        staying = {
            name
            for name in waiting
            if newest.get(name.rpartition("/")[0], 0) <= newest_mtime_ns(known[name])
        }
        return frozenset(path for name in removed - staying for path in known[name])

    def take(self, pending: Pending, held: Held, *, is_urgent: bool) -> Change:
        """Takes what may be taken.

        Raises:
            DiskFullError: There is no room to take it.
        """
        self.area.clear()
        self.objections = {}
        taken: dict[str, Taken] = {}
        gone = set(pending.gone)
        large_nbytes = 0
        left: list[Unit] = []
        writers = writers_in(self.folder) if pending.units else Writers(frozenset(), sees_all=True)
        for unit in pending.units:
            nbytes = unit.nbytes if unit.nbytes > SMALL_BYTES else 0
            if large_nbytes and nbytes and large_nbytes + nbytes > _VERSION_BYTES:
                left.append(unit)
                continue
            sisters = self._sisters(unit, held)
            objection = self._settling.objection(unit, writers, sisters, is_urgent=is_urgent)
            if not objection:
                objection = self._take_unit(unit, held, taken, gone)
            if objection:
                self.objections[unit.name] = objection
                left.append(unit)
                continue
            large_nbytes += nbytes
        self._leave_what_names(left, taken, held)
        contents = [*(path for path in held.contents if path not in gone), *taken]
        links = self._links(pending.look, contents, held)
        return Change(taken, frozenset(gone), links, pending.saved_s)

    def _take_unit(self, unit: Unit, held: Held, taken: dict[str, Taken], gone: set[str]) -> str:
        """Takes a unit, and what it lost goes with that; returns why it could not be."""
        try:
            found = self._taken(unit, held)
        except OSError as error:
            if isinstance(error, ColabKitError) or error.errno in _NO_ROOM:
                raise
            return f"{unit.name} cannot be read: {error.strerror}"
        if found is None:
            return f"{unit.name} is written all the time"
        files, contents = found
        taken |= contents
        gone |= self._known(held).get(unit.name, {}).keys() - files
        return ""

    def _leave_what_names(self, left: Iterable[Unit], taken: dict[str, Taken], held: Held) -> None:
        """Leaves small files that name a checkpoint which does not go with them.

        A trainer that finds a name in ``last_checkpoint`` or ``latest`` loads that, or fails.
        """
        names = [name for u in left if u.files.keys() - held.contents.keys() for name in called(u)]
        if not names:
            return
        spoken = re.compile(
            b"|".join(rb"(?<![\w.-])%b(?!\w)" % re.escape(n).encode() for n in names)
        )
        for path, each in tuple(taken.items()):
            is_pointer = each.place is None and len(each.data) <= _POINTER_BYTES
            if is_pointer and unit_of(path, self.whole) == path and (f := spoken.search(each.data)):
                del taken[path]
                self.objections[path] = f"{path} names {f[0].decode()}, which is not taken yet"

    def _sisters(self, unit: Unit, held: Held) -> frozenset[str]:
        """Returns the kinds of files in the newest whole folder beside a folder."""
        if not unit.is_folder:
            return frozenset()
        above = unit.name.rpartition("/")[0]
        best: tuple[int, frozenset[str]] = (0, frozenset())
        for name, files in self._known(held).items():
            if name not in files and name != unit.name and name.rpartition("/")[0] == above:
                mtime_ns = newest_mtime_ns(files)
                inner = kinds_of(path.removeprefix(f"{name}/") for path in files)
                best = max(best, (mtime_ns, inner), key=lambda each: each[0])
        return best[1]

    def _taken(self, unit: Unit, held: Held) -> tuple[Set[str], dict[str, Taken]] | None:
        """Returns a unit's files, and the new ones as they were at one instant; None if it failed.

        Raises:
            OSError: One of them cannot be read.
        """
        for number in range(_TRIES):
            if number:
                seen = look_at(self.folder, self.skip).files
                files = by_unit(seen, self.whole).get(unit.name)
                if files is None:
                    return None
                unit = Unit(unit.name, files)
            try:
                taken = {
                    path: self.area.take(path, stamp, held.contents.get(path))
                    for path, stamp in unit.files.items()
                    if self.stamps.get(path) != stamp or path not in held.contents
                }
            except ChangedError:
                continue
            if self._is_still(unit):
                return unit.files.keys(), taken
        return None

    def _is_still(self, unit: Unit) -> bool:
        """Whether nothing of a unit was written while it was taken."""
        if len(unit.files) == 1:
            # Its bytes were the same before and after; a writer may only just begin.
            return True
        try:
            same = all(
                Stamp.of((self.folder / path).stat()) == stamp for path, stamp in unit.files.items()
            )
        except OSError:
            return False
        if not unit.is_folder:
            return same  # a database is open all the time
        return same and not writers_in(self.folder).paths & unit.files.keys()
