"""What tests of kept folders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colabkit.keeping import Kept, keep


class Machine:
    """One machine after another: a disk of its own each, and one place that lasts."""

    def __init__(self, root: Path, environ: pytest.MonkeyPatch) -> None:
        self.root, self._environ = root, environ
        self.place = root / "safe"
        self.number = 0
        self.kept: list[Kept] = []
        self.next()

    def next(self) -> None:
        """The machine goes, with all that is on its disk; another one comes."""
        self.number += 1
        self.disk = self.root / f"machine-{self.number}"
        self._environ.setenv("COLABKIT_CACHE", str(self.disk / "cache"))
        self.folder = self.disk / "runs"

    def keep(self, **options: object) -> Kept:
        kept = keep(self.folder, self.place, **{"every": 0.01, **options})
        self.kept.append(kept)
        return kept

    def kill(self) -> None:
        """Ends what keeps a folder without a flush, as the machine's end does."""
        for kept in self.kept:
            ended(kept)
        self.kept = []
        self.next()

    def put(self, path: str, content: str | bytes) -> Path:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
        return place

    def there(self, kind: str) -> list[str]:
        """The names of what lies there, without the mark that a version was whole once."""
        return sorted(p.name for p in (self.place / kind).glob("*") if p.name != "whole.txt")

    def rounds(self, kept: Kept, count: int = 1) -> None:
        """Has so many looks done, without a wait for what may not be taken yet."""
        for _ in range(count):
            kept._opened.keeper.next_round(timeout_s=300)


def ended(kept: Kept) -> None:
    """Ends what keeps a folder, and its thread, which goes last on a busy machine."""
    kept.end()
    thread = kept._opened.keeper._thread
    if thread.ident is not None:
        thread.join(300)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(tmp_path, monkeypatch)
    yield machine
    for kept in machine.kept:
        ended(kept)


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    return tree_of


def tree_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
