"""Decides what of a kept folder goes into the next version, and takes it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path

from colabkit.keeping.held import Held, is_checkpoint, newest_mtime_ns
from colabkit.keeping.looking import Look, Stamp, look_at
from colabkit.keeping.open_files import writers_in
from colabkit.keeping.publishing import Change
from colabkit.keeping.settling import Settling, Unit, kinds_of
from colabkit.keeping.staging import ChangedError, StagingArea, Taken
from colabkit.keeping.units import by_unit
from colabkit.keeping.version import Content

# Old checkpoints wait for the next version: the newest is not to arrive with the last of them.
_VERSION_BYTES = 200_000_000
_TRIES = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Pending:
    """What a look found to be new.

    Attributes:
        look: The look.
        units: What changed, the newest first.
        gone: Paths that are not there any more, and may go.
        saved_s: When it was, in seconds since the epoch.
    """

    look: Look
    units: tuple[Unit, ...]
    gone: frozenset[str]
    saved_s: float

    @property
    def is_empty(self) -> bool:
        """Whether all is as it was."""
        return not (self.units or self.gone)


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
        # Most looks find nothing: grouping thousands of files would hold the trainer up for it.
        units = by_unit(look.files, self.whole) if new or missing else {}
        names = by_unit(dict.fromkeys((*new, *missing)), self.whole)
        changed = {name: Unit(name, units[name]) for name in names if name in units}
        self._settling.note(changed)
        gone = self._gone(names.keys() - units.keys(), held)
        newest_first = sorted(changed.values(), key=lambda unit: unit.mtime_ns, reverse=True)
        return Pending(look, tuple(newest_first), gone, saved_s)

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
        nbytes = 0
        writers = writers_in(self.folder) if pending.units else None
        for unit in pending.units:
            if nbytes and nbytes + unit.nbytes > _VERSION_BYTES:
                continue
            assert writers is not None  # noqa: S101  # there are units
            sisters = self._sisters(unit, held)
            objection = self._settling.objection(unit, writers, sisters, is_urgent=is_urgent)
            found = None if objection else self._taken(unit, held)
            if found is None:
                self.objections[unit.name] = objection or f"{unit.name} is written all the time"
                continue
            taken |= found
            nbytes += unit.nbytes
            if unit.is_folder:
                inside = self._known(held).get(unit.name, {})
                gone |= inside.keys() - unit.files.keys()
        return Change(taken, frozenset(gone), pending.look.links, pending.saved_s)

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

    def _taken(self, unit: Unit, held: Held) -> dict[str, Taken] | None:
        """Returns a unit's new files as they were at one instant, None when that failed."""
        for number in range(_TRIES):
            if number:
                seen = look_at(self.folder, self.skip).files
                files = by_unit(seen, self.whole).get(unit.name)
                if files is None:
                    return None
                unit = Unit(unit.name, files)
            try:
                taken = {
                    path: self.area.take(path, stamp)
                    for path, stamp in unit.files.items()
                    if self.stamps.get(path) != stamp or path not in held.contents
                }
            except ChangedError:
                continue
            if self._is_still(unit):
                return taken
        return None

    def _is_still(self, unit: Unit) -> bool:
        """Whether nothing of a unit was written while it was taken."""
        if not unit.is_folder:
            # Its bytes were the same before and after; a writer may only just begin.
            return True
        try:
            same = all(
                Stamp.of((self.folder / path).stat()) == stamp for path, stamp in unit.files.items()
            )
        except OSError:
            return False
        return same and not writers_in(self.folder).paths & unit.files.keys()
