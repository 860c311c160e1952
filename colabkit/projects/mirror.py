"""A project on this machine's disk: brought here as far as it changed, and its output back."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from colabkit.errors import DiskFullError, StorageError
from colabkit.projects.finding_scripts import Script
from colabkit.projects.synced import Synced, read_list, write_list
from colabkit.projects.trees import ASIDE, Stamp, Tree, is_left_out, read_tree, walk
from colabkit.storage import AnyVolume, Bytes, cache_folder, hash_of, make_in_cache, volume_at

_COPIERS = 8
_PART_BYTES = 8 << 20
_SPARE_BYTES = 200_000_000
_BESIDE = "../"


@dataclasses.dataclass(frozen=True, slots=True)
class Brought:
    """What one call copied here.

    Attributes:
        copied: How many files.
        nbytes: Their size.
        files: How many files the project has.
        links: What is read where it lies.
    """

    copied: int
    nbytes: int
    files: int
    links: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class TakenBack:
    """What one pass wrote where output belongs.

    Attributes:
        saved: The files that are there now, by their paths in the project.
        unsaved: Why the others are not, by their paths.
        beside: Where a file was written beside one that somebody else had changed.
    """

    saved: tuple[str, ...] = ()
    unsaved: dict[str, StorageError] = dataclasses.field(default_factory=dict)
    beside: dict[str, str] = dataclasses.field(default_factory=dict)


class Mirror:
    """A project's copy on this machine's disk.

    Args:
        script: What is run.
        cache: Where mirrors lie.
    """

    def __init__(self, script: Script, cache: Path | None = None) -> None:
        assert script.home is not None, "a project that is worked in place has no mirror"  # noqa: S101
        name = hash_of(str(script.project).encode())[:12]
        self.root = (cache or cache_folder()) / "projects" / name
        self._source = script.project
        self._home = script.home
        self._is_root = script.is_root
        self.project = self.root / "tree" / script.project.name
        self._lock = threading.Lock()
        self._synced: dict[str, Synced] = {}
        self._seen: dict[str, Stamp] = {}
        self._here: set[str] = set()
        self._volumes: dict[bool, AnyVolume] = {}

    def bring(self) -> Brought:
        """Copies what changed in the project, and links what is large.

        Raises:
            DiskFullError: This machine's disk has too little room.
            StorageError: The project cannot be read.
        """
        try:
            tree = read_tree(self._source, links_folders=self._is_root)
            self._open()
            return self._brought(tree)
        except StorageError:
            raise
        except OSError as error:
            message = f"The project {self._source} could not be copied: {error.strerror}."
            hint = "Run colabkit.mount() if it is on Drive, then this cell again."
            raise StorageError(message, path=self._source, operation="copy", hint=hint) from error

    def _open(self) -> None:
        make_in_cache(self.project)
        self._synced = read_list(self.root)
        if self._synced:
            # A kernel that ended in the middle of a script left output here.
            self.take_back()

    def _brought(self, tree: Tree) -> Brought:
        wanted = {name: s for name, s in tree.files.items() if self._is_stale(name, s)}
        nbytes = sum(stamp.nbytes for stamp in wanted.values())
        self._check_room(nbytes)
        self._forget_gone(tree)
        self._link_large(tree)
        same_place = self._home == self._source
        for name, source in wanted.items():
            there = source if same_place else getattr(self._synced.get(name), "there", None)
            self._synced[name] = Synced(None, source, there)
        # A call that is stopped while it copies must not take the copies for output.
        write_list(self.root, self._synced)
        for folder in tree.folders:
            (self.project / folder).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_COPIERS, "colabkit-mirror") as copiers:
            stamps = list(copiers.map(self._copy, wanted))
        for name, here in zip(wanted, stamps, strict=True):
            if here is None:
                del self._synced[name]
            else:
                self._synced[name] = dataclasses.replace(self._synced[name], here=here)
        if not self._is_root:
            self._link_siblings()
        write_list(self.root, self._synced)
        copied = len(stamps) - stamps.count(None)
        files = len(tree.files) - stamps.count(None)
        return Brought(copied, nbytes, files, tree.links)

    def _is_stale(self, name: str, source: Stamp) -> bool:
        """Whether a file must be copied; what was made here and is not yet there never is."""
        known, here = self._synced.get(name), Stamp.of(self.project / name)
        if known is not None and known.here is None:
            return True
        if known is not None and here == known.here:
            return not source.is_still(known.source)
        return here is None or here.is_like(source)

    def _check_room(self, nbytes: int) -> None:
        free = shutil.disk_usage(self.root).free
        if nbytes and nbytes + _SPARE_BYTES > free:
            message = (
                f"The project needs {nbytes / 1e6:.0f} MB on this machine's disk, of which"
                f" {free / 1e6:.0f} MB are free."
            )
            hint = "Delete what you no longer need in /content, or restart on a fresh machine."
            raise DiskFullError(
                message, path=self.root, needed_bytes=nbytes, free_bytes=free, hint=hint
            )

    def _forget_gone(self, tree: Tree) -> None:
        """Removes here what was removed in the project, and nothing that was made here."""
        for name in [n for n, synced in self._synced.items() if n not in tree.files]:
            path, synced = self.project / name, self._synced[name]
            if self._is_linked(name):
                # A call before was stopped after it linked the folder: this is the only copy.
                del self._synced[name]
            elif synced.source is not None and synced.here in {None, Stamp.of(path)}:
                path.unlink(missing_ok=True)
                del self._synced[name]
                with contextlib.suppress(OSError):  # what is not empty stays
                    for folder in Path(name).parents[:-1]:
                        (self.project / folder).rmdir()

    def _is_linked(self, name: str) -> bool:
        """Whether a path leads through a link to where its folder really lies."""
        return any((self.project / folder).is_symlink() for folder in Path(name).parents)

    def _link_large(self, tree: Tree) -> None:
        """Links what is large now; what is not any more is copied, and not through a link."""
        for entry in list(self.project.iterdir()):
            if entry.is_symlink() and entry.name not in tree.links:
                entry.unlink()
        for name in tree.links:
            self._link(name)

    def _link(self, name: str) -> None:
        """Puts a link in the place of what is here, unless that is saved nowhere else."""
        link, target = self.project / name, Path(os.path.normpath(self._source / name))
        if link.is_symlink():
            if link.readlink() == target:
                return
        elif link.exists():
            unsaved = [one for one, _ in self._changed()]
            inside = [one for one in unsaved if one == name or one.startswith(f"{name}/")]
            if inside:
                message = f"{inside[0]} was made by the script and is not saved yet."
                hint = f"Copy it from {self.project} to where it belongs, and delete it there."
                raise StorageError(message, path=link, operation="link", hint=hint)
        _remove(link)
        link.symlink_to(target)

    def _copy(self, name: str) -> Stamp | None:
        """Copies a file here; None where Drive has it for browsers only, as Google's documents."""
        source, target = self._source / name, self.project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or target.is_dir():
            _remove(target)
        aside = target.with_name(f"{ASIDE}{os.getpid()}-{target.name}")
        try:
            shutil.copyfile(source, aside)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return None
        shutil.copystat(source, aside)
        aside.replace(target)
        return Stamp.of(target)

    def _link_siblings(self) -> None:
        """Makes ``../data`` mean here what it means in the project's own place."""
        for path in self._source.parent.iterdir():
            if path.name != self._source.name and not is_left_out(path.name):
                self._link(f"{_BESIDE}{path.name}")

    def take_back(self, *, only_settled: bool = False) -> TakenBack:
        """Writes new and changed files where output belongs, each of them whole.

        Args:
            only_settled: Leave out what changed since the pass before: it may be half written.
        """
        saved: list[str] = []
        beside: dict[str, str] = {}
        unsaved: dict[str, StorageError] = {}
        with self._lock:
            for name, stamp in self._changed():
                if only_settled and self._seen.get(name) != stamp:
                    self._seen[name] = stamp
                    continue
                try:
                    target = self._write(name, stamp)
                except StorageError as error:
                    unsaved[name] = error
                    continue
                saved.append(name)
                if target != name:
                    beside[name] = target
            self._remove_gone()
            write_list(self.root, self._synced)
        return TakenBack(tuple(saved), unsaved, beside)

    def _changed(self) -> list[tuple[str, Stamp]]:
        found = []
        # With folders that a script made beside its project, as ../results.
        for path, stat in walk(self.project.parent):
            name, stamp = os.path.relpath(path, self.project), Stamp(stat.st_size, stat.st_mtime_ns)
            if not name.startswith(_BESIDE):
                self._here.add(name)
            known = self._synced.get(name)
            if known is None or known.here not in {None, stamp}:
                found.append((name, stamp))
        return sorted(found)

    def _write(self, name: str, stamp: Stamp) -> str:
        known, target = self._synced.get(name), name
        try:
            there = Stamp.of(self._home / name)
        except OSError as error:
            message = f"{self._home / name} could not be looked at: {error.strerror}."
            raise StorageError(message, path=name, operation="stat") from error
        expected = known.there if known is not None else None
        is_shared = self._home == self._source or name.startswith(_BESIDE)
        if is_shared and there is not None and not there.is_like(expected):
            target = self._free_name(name)
        volume = self._opened(is_beside=name.startswith(_BESIDE))
        volume.write(target.removeprefix(_BESIDE), _parts(self.project / name))
        source = known.source if known is not None else None
        if target == name:
            there = Stamp.of(self._home / name)
            source = there if self._home == self._source else source
        is_ours = known is None or known.is_ours
        self._synced[name] = Synced(stamp, source, there, is_ours and target == name)
        return target

    def _free_name(self, name: str) -> str:
        """Returns a name beside one that somebody else has changed meanwhile."""
        path = Path(name)
        number = 1
        while True:
            free = path.with_name(f"{path.stem}.from-run-{number}{path.suffix}")
            if not (self._home / free).exists():
                return str(free)
            number += 1

    def _remove_gone(self) -> None:
        """What was made here, written there and removed here again is removed there too."""
        for name, synced in list(self._synced.items()):
            # What was never seen here may have been lost with this folder, not removed.
            was_here = synced.is_ours and name in self._here
            if not was_here or (self.project / name).exists():
                continue
            with contextlib.suppress(OSError):
                there = Stamp.of(self._home / name)
                if there is not None and there.is_like(synced.there):
                    self._opened().delete([name])
                del self._synced[name]

    def _opened(self, *, is_beside: bool = False) -> AnyVolume:
        if is_beside not in self._volumes:
            folder = self._home.parent if is_beside else self._home
            self._volumes[is_beside] = volume_at(folder)
        return self._volumes[is_beside]


def _parts(path: Path) -> Iterator[Bytes]:
    try:
        with path.open("rb") as file:
            while data := file.read(_PART_BYTES):
                yield np.frombuffer(data, np.uint8)
    except FileNotFoundError as error:
        message = f"{path} was removed while it was copied."
        raise StorageError(message, path=path, operation="read") from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
