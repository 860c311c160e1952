"""Decides what of a kept folder goes into the next version, and takes it."""

from __future__ import annotations

import dataclasses
import errno
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from operator import itemgetter
from pathlib import Path

from colabkit.errors import ColabKitError
from colabkit.keeping.held import Held, age_key, is_checkpoint, links_to_keep
from colabkit.keeping.open_files import Writers, writers_in
from colabkit.keeping.pointers import POINTER_BYTES, Pointers, named_in
from colabkit.keeping.publishing import Change
from colabkit.keeping.scanning import FolderScan, Stamp, led_to, scan_folder
from colabkit.keeping.settling import (
    FOLDER_REST_S,
    Settling,
    Unit,
    called,
    kinds_of,
    lacking_beside,
    series_of,
)
from colabkit.keeping.staging import SMALL_BYTES, ChangedError, StagingArea, Taken, is_as_taken
from colabkit.keeping.units import by_unit, natural_key, patterns_by, unit_of
from colabkit.keeping.version import Content

# Old checkpoints wait for the next version: the newest is not to arrive with the last of them.
_VERSION_BYTES = 200_000_000
_TRIES = 4
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

    scan: FolderScan
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
    _pointers: Pointers = dataclasses.field(default_factory=Pointers)
    _missing: dict[str, float] = dataclasses.field(default_factory=dict)
    _grouped: tuple[Held, dict[str, dict[str, Content]]] | None = None

    def __post_init__(self) -> None:
        self._settling = Settling(self.folder, self.clock)

    def scan(self, held: Held) -> Pending:
        """Returns what is new since what a version holds."""
        saved_s = time.time()
        scan = scan_folder(self.folder, self.skip)
        stamps, baseline = self.stamps, self.baseline
        new = [
            path
            for path, stamp in scan.files.items()
            if stamps.get(path) != stamp and baseline.get(path) != stamp
        ]
        missing = held.contents.keys() - scan.files.keys()
        now_s = self.clock()
        lost = (*missing, *(held.links.keys() - scan.links.keys()))
        self._missing = {path: self._missing.get(path, now_s) for path in lost}
        self._note_folders([*new, *missing])
        # Most looks find nothing: grouping thousands of files would hold the trainer up for it.
        units = by_unit(scan.files, self.whole) if new or missing else {}
        names = by_unit(dict.fromkeys((*new, *missing)), self.whole)
        changed = {
            name: Unit(name, units[name])
            for name in names
            if name in units and not self._is_half_removed(name, units[name], held)
        }
        self._settling.note(changed)
        gone = self._gone(names.keys() - units.keys(), held)
        newest_first = sorted(changed.values(), key=lambda unit: unit.mtime_ns, reverse=True)
        links = held.links if scan.links == held.links else self._links(scan, held.contents, held)
        return Pending(scan, tuple(newest_first), gone, links != held.links, saved_s)

    def _note_folders(self, paths: Iterable[str]) -> None:
        whole = patterns_by(paths, self.whole)
        if whole != self.whole:
            self.whole = whole
            self._grouped = None

    def _is_half_removed(self, name: str, files: Mapping[str, Stamp], held: Held) -> bool:
        """Whether a folder lost some of its files and was not written again.

        Its trainer removes it, or died when it was at that: the version before has all of it.
        """
        known = self._known(held).get(name, {})
        is_less = name not in files and bool(known.keys() - files.keys())
        return is_less and all(self.stamps.get(path) == stamp for path, stamp in files.items())

    def _links(self, scan: FolderScan, contents: Collection[str], held: Held) -> Mapping[str, str]:
        return links_to_keep(scan.links, [*contents, *self.baseline], held.links)

    def _known(self, held: Held) -> dict[str, dict[str, Content]]:
        """Returns what a version holds by unit; made once for each version."""
        if self._grouped is None or self._grouped[0] is not held:
            self._grouped = (held, by_unit(held.contents, self.whole))
        return self._grouped[1]

    def _gone(self, removed: Set[str], held: Held) -> frozenset[str]:
        """Returns the files of removed units; a checkpoint goes once a newer one is kept beside it.

        That may be removed as well by now: then it stays, until there is one newer than that.
        """
        known = self._known(held)
        waiting = {name for name in removed if is_checkpoint(name, known[name])}
        beside: dict[str, list[str]] = {}
        for name, files in known.items() if waiting else ():
            if is_checkpoint(name, files):
                beside.setdefault(name.rpartition("/")[0], []).append(name)

        def is_newer(name: str, other: str) -> bool:
            # A clock that was put back makes what is newer look old: then its number tells.
            is_one_on = kinds_of([name]) == kinds_of([other])
            by_number = is_one_on and natural_key(name) > natural_key(other)
            return by_number or age_key(known[name]) > age_key(known[other])

        def is_replaced(name: str) -> bool:
            newer = [e for e in beside.get(name.rpartition("/")[0], ()) if is_newer(e, name)]
            # One that lacks something may be torn: then it alone replaces no whole one.
            return len(newer) > 1 or any(
                name in known[name]
                or each in known[each]
                or not lacking_beside(_inner(each, known[each]), [_kinds(name, known[name])])
                for each in newer
            )

        staying = {name for name in waiting if not is_replaced(name)}
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
        full: OSError | None = None
        left: list[Unit] = []
        writers = writers_in(self.folder) if pending.units else Writers(frozenset(), sees_all=True)
        for unit in pending.units:
            nbytes = unit.nbytes if unit.nbytes > SMALL_BYTES else 0
            if large_nbytes and nbytes and large_nbytes + nbytes > _VERSION_BYTES:
                left.append(unit)
                continue
            try:
                objection = self._take_unit(unit, writers, held, taken, gone, is_urgent=is_urgent)
            except OSError as error:
                # What needs no copy, or a small one, goes all the same.
                full = full or error
                objection = str(error)
            if objection:
                self.objections[unit.name] = objection
                left.append(unit)
                continue
            large_nbytes += nbytes
        if full is not None and not taken:
            raise full
        after = scan_folder(self.folder, self.skip)
        self._leave_what_changed(pending, after, taken)
        names = self._names(pending, after, held)
        self._leave_what_names(names, after, taken, held)
        gone -= self._staying(pending.gone, after, taken, held, is_urgent=is_urgent)
        contents = [*(path for path in held.contents if path not in gone), *taken]
        links = self._links(self._with_gaps(after, held, is_urgent=is_urgent), contents, held)
        named = {path: named_in(each.data, names, path) for path, each in _pointers_in(taken)}
        return Change(taken, frozenset(gone), links, pending.saved_s, named, full)

    def _take_unit(
        self,
        unit: Unit,
        writers: Writers,
        held: Held,
        taken: dict[str, Taken],
        gone: set[str],
        *,
        is_urgent: bool,
    ) -> str:
        """Takes a unit, and what it lost goes with that; returns why it could not be."""
        kinds = self._sisters(unit, held), self._kinds_before(unit, held)
        for _ in range(_TRIES):
            objection = self._settling.objection(unit, writers, *kinds, is_urgent=is_urgent)
            if objection:
                return objection
            try:
                contents = self._taken(unit, held)
            except OSError as error:
                if isinstance(error, ColabKitError) or error.errno in _NO_ROOM:
                    raise
                return f"{unit.name} cannot be read: {error.strerror}"
            if contents is not None:
                taken |= contents
                gone |= self._known(held).get(unit.name, {}).keys() - unit.files.keys()
                return ""
            # Written over meanwhile, it may be half of the next now: it is judged anew.
            files = by_unit(scan_folder(self.folder, self.skip).files, self.whole).get(unit.name)
            if files is None:
                break
            unit, writers = Unit(unit.name, files), writers_in(self.folder)
            self._settling.note_one(unit)
        return f"{unit.name} is written all the time"

    def _leave_what_changed(
        self, pending: Pending, after: FolderScan, taken: dict[str, Taken]
    ) -> None:
        """Leaves units of which a small file was written over within one tick of the clock."""
        changed = {
            unit_of(path, self.whole)
            for path, each in taken.items()
            if not each.place
            and after.files.get(path) == each.stamp
            and not is_as_taken(self.folder / path, each, since_s=pending.saved_s)
        }
        for path in [path for path in taken if changed and unit_of(path, self.whole) in changed]:
            del taken[path]

    def _names(self, pending: Pending, after: FolderScan, held: Held) -> dict[str, set[str]]:
        """Returns by what names files may speak of checkpoints, and what those consist of."""
        units = {name: set(files) for name, files in self._known(held).items()}
        seen = [Unit(name, files) for name, files in by_unit(after.files, self.whole).items()]
        for unit in (*pending.units, *seen):
            units.setdefault(unit.name, set()).update(unit.files)
        names: dict[str, set[str]] = {}
        for name, files in units.items():
            for each in called(name, files):
                names.setdefault(each, set()).update(files)
        return names

    def _leave_what_names(
        self, names: Mapping[str, set[str]], after: FolderScan, taken: dict[str, Taken], held: Held
    ) -> None:
        """Leaves small files that name a checkpoint which does not go with them.

        The folder has gone on since it was looked at: what they name may be newer than that.
        """
        there = {*held.contents, *taken, *self.baseline}
        for path, each in _pointers_in(taken):
            if unit_of(path, self.whole) != path:
                continue
            named = named_in(each.data, names, path)
            lacking = next((name for name in sorted(named) if names[name] - there), "")
            if not lacking and not named and after.files.get(path) not in {None, each.stamp}:
                # It may have named what came and went while the version was taken.
                lacking = min(named_in(_read(self.folder / path), names, path), default="")
            if lacking:
                del taken[path]
                self.objections[path] = f"{path} names {lacking}, which is not taken yet"

    def _staying(
        self,
        gone: frozenset[str],
        after: FolderScan,
        taken: Mapping[str, Taken],
        held: Held,
        *,
        is_urgent: bool,
    ) -> set[str]:
        """Returns the files of removed units that stay: they may be back at once, or are spoken of.

        A trainer that writes ``latest`` anew may remove it first.
        """
        if not gone:
            return set()
        units = by_unit(dict.fromkeys(gone), self.whole)
        here = by_unit(after.files, self.whole)
        spoken = self._still_spoken_of(after, taken, held, is_urgent=is_urgent)
        there = [*(path for path in held.contents if path not in gone), *taken, *self.baseline]
        links = self._with_gaps(after, held, is_urgent=is_urgent).links
        behind = links.keys() & held.links.keys() - links_to_keep(links, there, {}).keys()
        led = [led_to(path, held.links) for path in behind]
        staying: set[str] = set()
        for name, files in units.items():
            is_spoken_of = is_checkpoint(name, files) and (
                spoken is None or not spoken.isdisjoint(called(name, files))
            )
            is_led_to = any(each == name or each.startswith(f"{name}/") for each in led)
            is_gap = not all(self._is_missed(path, is_urgent=is_urgent) for path in files)
            if name in here or is_spoken_of or is_led_to or is_gap:
                staying |= files.keys()
        return staying

    def _still_spoken_of(
        self, after: FolderScan, taken: Mapping[str, Taken], held: Held, *, is_urgent: bool
    ) -> frozenset[str] | None:
        """Returns what is named by files that stay as the version before has them.

        None where that is not known of one of them.
        """
        names: frozenset[str] = frozenset()
        for path, content in held.contents.items():
            if path in taken or content.nbytes > POINTER_BYTES or unit_of(path, self.whole) != path:
                continue
            now = after.files.get(path)
            is_gap = now is None and not self._is_missed(path, is_urgent=is_urgent)
            if is_gap or now not in {None, self.stamps.get(path)}:
                named = self._pointers.named_by(path)
                if named is None:
                    return None
                names |= named
        return names

    def _is_missed(self, path: str, *, is_urgent: bool) -> bool:
        """Whether something is missing for longer than it takes to write it anew."""
        since_s = self._missing.get(path)
        return is_urgent or since_s is None or self.clock() - since_s >= FOLDER_REST_S

    def _with_gaps(self, scan: FolderScan, held: Held, *, is_urgent: bool) -> FolderScan:
        """Returns a look with the links that may be back at once."""
        back = {
            path: target
            for path, target in held.links.items()
            if path not in scan.links
            and path not in scan.files
            and not self._is_missed(path, is_urgent=is_urgent)
        }
        return dataclasses.replace(scan, links={**scan.links, **back})

    def published(self, change: Change) -> None:
        """Notes that the newest version holds what was taken."""
        self.stamps.update({path: each.stamp for path, each in change.taken.items()})
        for path in change.gone:
            self.stamps.pop(path, None)
        self._pointers.note(change.named)

    def forget(self, path: str) -> None:
        """Notes that the newest version holds something else of a file."""
        self.stamps.pop(path, None)
        self._pointers.forget(path)

    def _sisters(self, unit: Unit, held: Held) -> frozenset[str]:
        """Returns the kinds of files in the newest whole folder beside a folder."""
        if not unit.is_folder:
            return frozenset()
        series = series_of(unit.name)
        best: tuple[tuple[int, int], frozenset[str]] = ((0, 0), frozenset())
        for name, files in self._known(held).items():
            if name not in files and name != unit.name and series_of(name) == series:
                best = max(best, (age_key(files), _kinds(name, files)), key=itemgetter(0))
        return best[1]

    def _kinds_before(self, unit: Unit, held: Held) -> frozenset[str]:
        files = self._known(held).get(unit.name, {})
        return _kinds(unit.name, files) if unit.is_folder else frozenset()

    def _taken(self, unit: Unit, held: Held) -> dict[str, Taken] | None:
        """Returns what is new of a unit as it was at one instant; None where it was written over.

        Raises:
            OSError: One of its files cannot be read.
        """
        try:
            taken = {
                path: self.area.take(path, stamp, held.contents.get(path))
                for path, stamp in unit.files.items()
                if self.stamps.get(path) != stamp or path not in held.contents
            }
        except ChangedError:
            return None
        return taken if self._is_still(unit) else None

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


def _inner(unit: str, files: Iterable[str]) -> list[str]:
    return [path.removeprefix(f"{unit}/") for path in files]


def _kinds(unit: str, files: Iterable[str]) -> frozenset[str]:
    return kinds_of(_inner(unit, files))


def _pointers_in(taken: Mapping[str, Taken]) -> list[tuple[str, Taken]]:
    return [
        (path, each)
        for path, each in taken.items()
        if each.place is None and len(each.data) <= POINTER_BYTES
    ]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(POINTER_BYTES)
    except OSError:
        return b""
