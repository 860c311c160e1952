"""Which units of a look may be taken: nobody writes them, and nothing in them is missing."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from pathlib import Path, PurePosixPath

from colabkit.keeping.formats import WEIGHTS, is_torn
from colabkit.keeping.open_files import Writers
from colabkit.keeping.scanning import Stamp
from colabkit.keeping.units import missing_in, signs_in

# TensorFlow speaks of a checkpoint by what its files have in common.
_TF_PART = re.compile(r"\.(?:index|data-\d{5}-of-\d{5})$")
# A folder counts when nothing in it has changed for so long, a file as soon as it is closed.
FOLDER_REST_S = 2.0
# Its trainer may soon remove one that says itself that it is whole.
_SIGNED_REST_S = 0.2
# One whose sign is older than its weights is written anew under its name: more may come.
_REWRITTEN_REST_S = 60.0
# What lacks what its sister has may come yet, or was meant so.
SISTER_REST_S = 600.0
# What somebody has open all the time, as a log, is taken as far as it goes.
_OPEN_PATIENCE_S = 15.0
# A folder that never rests is taken as it is at one instant.
_RESTLESS_S = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """A file, or a folder that counts as a whole, as it was seen.

    Attributes:
        name: Its path in the kept folder.
        files: The stamps of its files.
    """

    name: str
    files: Mapping[str, Stamp]

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.name not in self.files

    @property
    def inner(self) -> frozenset[str]:
        """The paths of its files in it."""
        return frozenset(path.removeprefix(f"{self.name}/") for path in self.files)

    @property
    def mtime_ns(self) -> int:
        """When it was written last."""
        return max(stamp.mtime_ns for stamp in self.files.values())

    @property
    def nbytes(self) -> int:
        """Its size."""
        return sum(stamp.nbytes for stamp in self.files.values())


def kinds_of(names: Iterable[str]) -> frozenset[str]:
    """Returns names with their numbers left open: each checkpoint counts on.

    Example:
        >>> kinds_of(["global_step20/rng_0.pt"])
        frozenset({'global_step#/rng_#.pt'})
    """
    return frozenset(re.sub(r"\d+", "#", name) for name in names)


def series_of(unit: str) -> tuple[str, frozenset[str]]:
    """Returns what the checkpoints of one series share: their place, and their kind of name.

    Example:
        >>> series_of("out/step-20") == series_of("out/step-30")
        True
        >>> series_of("out/step-20") == series_of("out/best")
        False
    """
    above, _, name = unit.rpartition("/")
    return above, kinds_of([name])


def lacking_beside(inner: Collection[str], others: Collection[frozenset[str]]) -> str:
    """Returns what a checkpoint's folder lacks where each of some others has more, "" if not.

    Args:
        inner: The paths of its files in it.
        others: The kinds of files in the others.

    Example:
        >>> lacking_beside(["a.bin"], [frozenset({"a.bin", "b.bin"})])
        'b.bin'
    """
    is_signed = "trainer_state.json" in inner
    mine = kinds_of(inner)
    lacks = [each - mine for each in others]
    return min(lacks[0]) if lacks and all(lacks) and not is_signed else ""


def called(unit: str, files: Container[str]) -> list[str]:
    """Returns by what names a file elsewhere may speak of a checkpoint, none for what is none.

    Example:
        >>> called("tf/ckpt-3.index", {"tf/ckpt-3.index"})
        ['ckpt-3']
    """
    name = unit.rpartition("/")[2]
    stem = _TF_PART.sub("", name.removesuffix(".*"))
    is_one = unit not in files or stem != name or PurePosixPath(name).suffix.lower() in WEIGHTS
    return [stem] if is_one and len(stem) > 3 else []


class Settling:
    """Remembers since when units are as they are.

    Args:
        folder: The kept folder.
        clock: Seconds that only grow.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._since: dict[str, tuple[Mapping[str, Stamp], float]] = {}
        self._changed_since: dict[str, float] = {}

    def note(self, units: Mapping[str, Unit]) -> None:
        """Notes what a look saw; only what changed since it was kept."""
        for name in self._since.keys() - units.keys():
            del self._since[name]
        for name in self._changed_since.keys() - units.keys():
            del self._changed_since[name]
        for unit in units.values():
            self.note_one(unit)

    def note_one(self, unit: Unit) -> None:
        """Notes a unit that was looked at again."""
        now_s = self._clock()
        self._changed_since.setdefault(unit.name, now_s)
        if unit.name not in self._since or self._since[unit.name][0] != unit.files:
            self._since[unit.name] = (unit.files, now_s)

    def rested_s(self, name: str) -> float:
        """Returns for how long a unit has been seen as it is."""
        return self._clock() - self._since[name][1] if name in self._since else 0.0

    def objection(
        self,
        unit: Unit,
        writers: Writers,
        sisters: frozenset[str],
        before: frozenset[str] = frozenset(),
        *,
        is_urgent: bool = False,
    ) -> str:
        """Returns why a unit may not be taken yet, "" where it may.

        Args:
            unit: The unit, which was noted.
            writers: Who writes what.
            sisters: The kinds of files in the newest whole folder beside it, empty for none.
            before: The kinds of files in it when it was kept, empty where it was not.
            is_urgent: Whether somebody waits for it.
        """
        waited_s = self._clock() - self._changed_since.get(unit.name, self._clock())
        written = writers.paths & unit.files.keys()
        if not unit.is_folder:
            return self._file_objection(unit, bool(written), waited_s, writers, is_urgent=is_urgent)
        if written:
            return f"{min(written)} is being written"
        rested_s = self.rested_s(unit.name)
        if lacking := missing_in(unit.inner, unit.name):
            return f"{unit.name} lacks {lacking}"
        rest_s = _rest_s(unit, is_urgent=is_urgent)
        if rest_s == _SIGNED_REST_S:
            # A trainer that rotates may have removed it by the next look.
            rested_s = max(rested_s, self._untouched_s(unit))
        if rested_s < rest_s and waited_s < _RESTLESS_S:
            return f"{unit.name} has just been written"
        return self._lacking(unit, sisters, before, is_urgent=is_urgent) or self._torn_objection(
            unit
        )

    def _file_objection(
        self, unit: Unit, is_written: bool, waited_s: float, writers: Writers, *, is_urgent: bool
    ) -> str:
        if is_written:
            is_whole_when_closed = PurePosixPath(unit.name).suffix.lower() in WEIGHTS
            if is_whole_when_closed or not (is_urgent or waited_s >= _OPEN_PATIENCE_S):
                return f"{unit.name} is being written"
        if not writers.sees_all and self.rested_s(unit.name) < FOLDER_REST_S:
            return f"{unit.name} has just been written"
        return self._torn_objection(unit)

    def _untouched_s(self, unit: Unit) -> float:
        """Returns for how long nobody has touched a unit's files, as their disk tells.

        A copy may keep the time of what it was made from; when it was made itself, it cannot hide.
        """
        try:
            seen = {path: (self._folder / path).stat() for path in unit.files}
        except OSError:
            return 0.0
        if any(Stamp.of(status) != unit.files[path] for path, status in seen.items()):
            return 0.0
        return time.time() - max(status.st_ctime for status in seen.values())

    def _lacking(
        self, unit: Unit, sisters: frozenset[str], before: frozenset[str], *, is_urgent: bool
    ) -> str:
        """Returns what a folder seems to lack of what it or another one had, "" for nothing."""
        if lacking := min(signs_in(sisters | before) - kinds_of(unit.inner), default=""):
            return f"{unit.name} lacks {lacking}"
        lacking = lacking_beside(unit.inner, [before] if before else [])
        if lacking and not self._is_written_on(unit.name):
            return f"{unit.name} lacks {lacking}, which it had when it was kept"
        # Somebody who waits may not wait so long: rather a part of it there than nothing.
        if self.rested_s(unit.name) >= (FOLDER_REST_S if is_urgent else SISTER_REST_S):
            return ""
        if lacking := lacking_beside(unit.inner, [sisters] if sisters else []):
            return f"{unit.name} lacks {lacking}, which the one before has"
        return ""

    def _is_written_on(self, name: str) -> bool:
        """Whether a folder was written again long after it began to lack something: so be it.

        One whose trainer died while it wrote stays as it is.
        """
        began_s = self._changed_since.get(name, self._clock())
        is_again = name in self._since and self._since[name][1] - began_s >= _REWRITTEN_REST_S
        return is_again and self._clock() - began_s >= SISTER_REST_S

    def _torn_objection(self, unit: Unit) -> str:
        for path in unit.files:
            try:
                if is_torn(self._folder / path):
                    return f"{path} is cut off"
            except FileNotFoundError:
                return f"{path} went away"
            except OSError as error:
                return f"{path} cannot be read: {error.strerror}"
        return ""


def _rest_s(unit: Unit, *, is_urgent: bool) -> float:
    """Returns for how long nothing in a folder may have changed before it counts."""
    signs = {f"{unit.name}/{name}" for name in signs_in(unit.inner)} & unit.files.keys()
    if not signs:
        return FOLDER_REST_S
    signed_ns = max(unit.files[path].mtime_ns for path in signs)
    is_rewritten = any(
        stamp.mtime_ns > signed_ns
        for path, stamp in unit.files.items()
        # Accelerate writes what a loop has registered after its sign.
        if PurePosixPath(path).suffix in WEIGHTS and "/custom_checkpoint_" not in path
    )
    if not is_rewritten:
        return _SIGNED_REST_S
    return FOLDER_REST_S if is_urgent else _REWRITTEN_REST_S
