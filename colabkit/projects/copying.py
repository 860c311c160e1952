"""A project on this machine's disk: brought here as far as it changed."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from colabkit.errors import DiskFullError, StorageError
from colabkit.projects.finding_scripts import Script
from colabkit.projects.synced import Synced, read_list, write_list
from colabkit.projects.trees import ASIDE, Stamp, Tree, is_left_out, read_tree, walk
from colabkit.storage import cache_folder, hash_of

_COPIERS = 8
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


class ProjectCopy:
    """A project's copy on this machine's disk.

    Args:
        script: What is run.
        cache: Where copies lie.
    """

    def __init__(self, script: Script, cache: Path | None = None) -> None:
        assert script.home is not None, "a project that is worked in place has no copy"  # noqa: S101
        name = hash_of(str(script.project).encode())[:12]
        self.root = (cache or cache_folder()) / "projects" / name
        self._source = script.project
        self._is_root = script.is_root
        self.project = self.root / "tree" / script.project.name
        self._synced: dict[str, Synced] = {}

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
        self.project.mkdir(parents=True, exist_ok=True)
        self._synced = read_list(self.root)

    def _brought(self, tree: Tree) -> Brought:
        wanted = {name: s for name, s in tree.files.items() if self._is_stale(name, s)}
        nbytes = sum(stamp.nbytes for stamp in wanted.values())
        self._check_room(nbytes)
        self._forget_gone(tree)
        self._link_large(tree)
        for name, source in wanted.items():
            self._synced[name] = Synced(None, source)
        # A call that is stopped while it copies must not take the copies for output.
        write_list(self.root, self._synced)
        for folder in tree.folders:
            (self.project / folder).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_COPIERS, "colabkit-copy") as copiers:
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
            elif synced.here in {None, Stamp.of(path)}:
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
            inside = self._made_here(name)
            if inside:
                message = f"{inside} was made by the script, and {name} is large on Drive now."
                hint = f"Move it out of {self.project / name}, and run the cell again."
                raise StorageError(message, path=link, operation="link", hint=hint)
        _remove(link)
        link.symlink_to(target)

    def _made_here(self, name: str) -> str:
        """Returns a file below a path that was not copied here, "" for none."""
        for path, status in walk(self.project.parent):
            one = os.path.relpath(path, self.project)
            stamp = Stamp(status.st_size, status.st_mtime_ns)
            if one == name or one.startswith(f"{name}/"):
                known = self._synced.get(one)
                if known is None or known.here not in {None, stamp}:
                    return one
        return ""

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

    def inputs(self) -> dict[str, Stamp]:
        """Returns what is no output, by its path beside the project: what was copied here."""
        name = self.project.name
        return {f"{name}/{path}": each.here for path, each in self._synced.items() if each.here}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
