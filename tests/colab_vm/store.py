"""The cloud: what is on Google's side, in a folder that outlives every machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


class CloudStore:
    """The objects of one Drive account, its Trash and its quota; safe between processes."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "MyDrive"
        self.trash_folder = folder / "Trash"
        self._quota_file = folder / "quota.json"
        self._lock_file = folder / "lock"
        self._thread_lock = threading.RLock()
        self._is_locked = False
        self.root.mkdir(parents=True, exist_ok=True)
        self.trash_folder.mkdir(exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds off every other process that would change names; may be entered again."""
        with self._thread_lock:
            if self._is_locked:
                yield
                return
            with self._lock_file.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._is_locked = True
                try:
                    yield
                finally:
                    self._is_locked = False

    def path(self, relative: PurePosixPath | str) -> Path:
        return self.root / relative

    @property
    def quota_bytes(self) -> int | None:
        try:
            return json.loads(self._quota_file.read_text())
        except FileNotFoundError:
            return None

    @quota_bytes.setter
    def quota_bytes(self, nbytes: int | None) -> None:
        aside = self._quota_file.with_suffix(".aside")
        aside.write_text(json.dumps(nbytes))
        aside.replace(self._quota_file)

    def used_bytes(self) -> int:
        """What counts against the quota: every object, and the Trash."""
        return sum(sizes_under(self.root).values()) + self.trash_bytes()

    def trash_bytes(self) -> int:
        return sum(sizes_under(self.trash_folder).values())

    def trash(self, relative: PurePosixPath) -> None:
        """Moves an object or a folder to the Trash, where it goes on counting."""
        with self.locked():
            source = self.path(relative)
            number = len(list(self.trash_folder.iterdir()))
            if source.exists():
                source.rename(self.trash_folder / f"{number:06d}~{source.name}")

    def empty_trash(self) -> None:
        with self.locked():
            shutil.rmtree(self.trash_folder)
            self.trash_folder.mkdir()

    def free_name(self, relative: PurePosixPath) -> PurePosixPath:
        """Returns the name itself, or beside one of the same name ``name (1)``."""
        number, free = 0, relative
        while self.path(free).exists():
            number += 1
            free = relative.with_name(numbered(relative.name, number))
        return free


def numbered(name: str, number: int) -> str:
    """Returns how Drive shows the n-th object of the same name: ``x (1).txt``."""
    path = PurePosixPath(name)
    return f"{path.stem} ({number}){path.suffix}" if number else name


def identity(path: Path) -> str:
    """Returns the id Drive gives an object, which a renaming keeps."""
    return f"1{path.stat().st_ino:032x}"


def md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def sizes_under(folder: Path) -> dict[str, int]:
    """Returns the size of every file by its path below a folder; what goes meanwhile is not there.

    Sorted by path.
    """
    sizes = {}
    for parent, _, names in os.walk(folder):
        for path in (Path(parent) / name for name in names):
            with contextlib.suppress(FileNotFoundError):
                sizes[path] = path.stat().st_size
    return {str(path.relative_to(folder)): sizes[path] for path in sorted(sizes)}
