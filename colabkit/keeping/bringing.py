"""Brings a kept folder back: the newest version that is whole, its newest checkpoint first."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from colabkit.errors import CheckpointCorruptError, DiskFullError
from colabkit.keeping.fetching import Fetcher, remove, sweep
from colabkit.keeping.held import Held, checkpoints_in
from colabkit.keeping.notes import Remembered
from colabkit.keeping.scanning import Stamp, scan_folder
from colabkit.keeping.settling import kinds_of
from colabkit.keeping.staging import hash_file
from colabkit.keeping.store import VersionStore
from colabkit.keeping.units import by_unit, folder_of, patterns_by
from colabkit.keeping.version import Content, Version, damaged
from colabkit.keeping.wholeness import is_whole

_SPARE_BYTES = 200_000_000


@dataclasses.dataclass(slots=True)
class Brought:
    """What came of it.

    Attributes:
        version: The version that the folder goes on from, None where there is none.
        held: What that holds.
        stamps: The stamps of files that are as they are in it.
        copied: The files that were copied here.
        nbytes: Their size.
        stayed: Units that are newer here.
        set_aside: Units that were here and differ, where they are now.
        skipped: Why newer versions were not taken.
        never_arrived: How many versions there are of which none was ever seen whole.
    """

    version: Version | None = None
    held: Held = dataclasses.field(default_factory=Held)
    stamps: dict[str, Stamp] = dataclasses.field(default_factory=dict)
    copied: list[str] = dataclasses.field(default_factory=list)
    nbytes: int = 0
    stayed: list[str] = dataclasses.field(default_factory=list)
    set_aside: dict[str, Path] = dataclasses.field(default_factory=dict)
    skipped: list[str] = dataclasses.field(default_factory=list)
    never_arrived: int = 0


def bring_back(
    folder: Path,
    store: VersionStore,
    *,
    whole: tuple[str, ...],
    skip: tuple[str, ...],
    remembered: Remembered | None,
    inputs: Mapping[str, tuple[int, int]],
) -> Brought:
    """Makes a folder what it was in the newest version that is whole.

    What is here and differs is set aside, never lost; where this machine went on from that
    version, what is here is newer and stays.

    Args:
        folder: Where it is to be.
        store: The versions on the volume.
        whole: What folders that count as a whole are called.
        skip: What is left out.
        remembered: What this machine noted of the folder, None when it kept none.
        inputs: The size and the time of each file that lies elsewhere as well: one that was
            changed there since it was kept stays, any other makes room.

    Raises:
        CheckpointCorruptError: None of the versions is whole, and one of them was.
        DiskFullError: This machine's disk has too little room.
        StorageError: The volume cannot be read at the moment.
    """
    sweep(folder)
    brought = Brought()
    names = store.names()
    for name in names:
        bringing = _Bringing(folder, store, whole, skip, remembered, inputs)
        try:
            version = store.version(name)
            _require_all_there(store, version)
            bringing.bring(version, brought)
        except CheckpointCorruptError as error:
            brought.skipped.append(str(error))
            continue
        return brought
    if names and store.was_whole:
        message = f"None of the {len(names)} versions in {store.volume.location} is whole."
        hint = (
            "If Drive still uploads from another session, wait and run again; another folder"
            " starts anew."
        )
        reasons = "; ".join(brought.skipped[:3])
        raise CheckpointCorruptError(
            message, path=store.volume.location, reason=reasons, hint=f"{reasons} {hint}"
        )
    brought.never_arrived = len(names)
    return brought


def _require_all_there(store: VersionStore, version: Version) -> None:
    if lacking := store.lacks(version):
        raise damaged(str(version.name), lacking)


class _Bringing:
    def __init__(
        self,
        folder: Path,
        store: VersionStore,
        whole: tuple[str, ...],
        skip: tuple[str, ...],
        remembered: Remembered | None,
        inputs: Mapping[str, tuple[int, int]],
    ) -> None:
        self._folder, self._store = folder, store
        self._whole, self._skip = whole, skip
        self._remembered, self._inputs = remembered, inputs

    def bring(self, version: Version, brought: Brought) -> None:
        fetcher = Fetcher(self._folder, self._store, version)
        held = fetcher.held
        scan = scan_folder(self._folder, self._skip)
        whole = patterns_by([*held.contents, *scan.files], self._whole)
        units = by_unit(held.contents, whole)
        local = by_unit(scan.files, whole)
        newest_first = checkpoints_in(held.contents, whole)
        order = [*newest_first, *(name for name in units if name not in newest_first)]
        is_ahead = (
            self._remembered is not None and version.name.generation <= self._remembered.generation
        )
        stamps: dict[str, Stamp] = {}
        wanted = []
        for name in order:
            here = local.get(name, {})
            if self._is_same(units[name], here):
                stamps |= {path: here[path] for path in units[name]}
            elif self._is_newer_input(units[name], here):
                continue
            elif is_ahead and here and self._is_whole(name, here, units[name]):
                stamps |= {p: s for p, s in here.items() if self._is_same_file(p, s, units[name])}
                brought.stayed.append(name)
            else:
                wanted.append(name)
        self._require_room(sum(c.nbytes for name in wanted for c in units[name].values()))
        if not is_ahead and self._remembered is not None:
            # This machine's own line ended where another one went on.
            ours = {name for name in local if name not in units and self._is_ours(local[name])}
            self._set_aside(ours, local, brought)
        for name in wanted:
            if name in local:
                if all(self._is_input(path, stamp) for path, stamp in local[name].items()):
                    for path in _places(name, local[name]):
                        remove(self._folder / path)
                else:
                    self._set_aside([name], local, brought)
            self._unlink_on_the_way(_places(name, units[name]))
            stamps |= fetcher.fetch(name, units[name])
            brought.copied += units[name]
            brought.nbytes += sum(content.nbytes for content in units[name].values())
        self._link(held.links, is_ahead=is_ahead)
        brought.version, brought.held, brought.stamps = version, held, stamps

    def _is_same(self, contents: Mapping[str, Content], here: Mapping[str, Stamp]) -> bool:
        if not contents.keys() <= here.keys():
            return False
        return all(self._is_same_file(path, here[path], contents) for path in contents)

    def _is_same_file(self, path: str, stamp: Stamp, contents: Mapping[str, Content]) -> bool:
        content = contents.get(path)
        if content is None or content.nbytes != stamp.nbytes:
            return False
        noted = self._remembered.stamps.get(path) if self._remembered is not None else None
        if noted == stamp and content.mtime_ns == stamp.mtime_ns:
            return True
        try:
            return hash_file(self._folder / path) == content.hash
        except OSError:
            return False

    def _is_whole(
        self, name: str, here: Mapping[str, Stamp], contents: Mapping[str, Content]
    ) -> bool:
        if not is_whole(self._folder, name, here):
            return False
        if name in here:
            return True
        is_written_again = not all(self._is_same_file(p, s, contents) for p, s in here.items())
        return kinds_of(contents) <= kinds_of(here) and (
            is_written_again or contents.keys() <= here.keys()
        )

    def _is_input(self, path: str, stamp: Stamp) -> bool:
        return self._inputs.get(path) == (stamp.nbytes, stamp.mtime_ns)

    def _is_newer_input(self, contents: Mapping[str, Content], here: Mapping[str, Stamp]) -> bool:
        """Whether somebody edited what a script had changed."""
        return len(contents) == 1 and any(
            path in contents
            and self._is_input(path, stamp)
            and stamp.mtime_ns > contents[path].mtime_ns
            for path, stamp in here.items()
        )

    def _is_ours(self, here: Mapping[str, Stamp]) -> bool:
        assert self._remembered is not None  # noqa: S101  # asked only then
        baseline = self._remembered.baseline
        return not all(
            baseline.get(path) == stamp or self._is_input(path, stamp)
            for path, stamp in here.items()
        )

    def _require_room(self, nbytes: int) -> None:
        place = next(each for each in (self._folder, *self._folder.parents) if each.exists())
        free = shutil.disk_usage(place).free
        if nbytes and nbytes + _SPARE_BYTES > free:
            message = (
                f"{self._store.volume.location} holds {nbytes / 1e6:,.0f} MB, and this machine's"
                f" disk has {free / 1e6:,.0f} MB free."
            )
            hint = "Delete what you no longer need on it, or pass a folder on another disk."
            raise DiskFullError(
                message, path=self._folder, needed_bytes=nbytes, free_bytes=free, hint=hint
            )

    def _set_aside(
        self, names: Iterable[str], local: Mapping[str, Collection[str]], brought: Brought
    ) -> None:
        for name in names:
            place = _free_place(self._folder) if not brought.set_aside else None
            root = place or next(iter(brought.set_aside.values()))
            for path in _places(name, local[name]):
                target = root / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / path).rename(target)
            brought.set_aside[name] = root

    def _unlink_on_the_way(self, places: Collection[str]) -> None:
        """Removes links where the version has a file or a folder: it would land elsewhere."""
        above = (str(each) for path in places for each in PurePosixPath(path).parents[:-1])
        for each in dict.fromkeys((*places, *above)):
            if (self._folder / each).is_symlink():
                (self._folder / each).unlink()

    def _link(self, links: Mapping[str, str], *, is_ahead: bool) -> None:
        for path, target in links.items():
            place = self._folder / path
            where = Path(os.path.normpath(place.parent / target))
            if not where.is_relative_to(self._folder):
                continue
            if place.is_symlink() and not is_ahead:
                # It leads to what was the newest when this machine was here last.
                place.unlink()
            if os.path.lexists(place):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                place.symlink_to(target)


def _places(name: str, files: Collection[str]) -> list[str]:
    """Returns what to move of a unit: its folder, or its files where it is none."""
    return [name] if folder_of(name, files) else list(files)


def _free_place(folder: Path) -> Path:
    number = 1
    while (place := folder.with_name(f"{folder.name}.before-{number}")).exists():
        number += 1
    return place
