"""What this machine remembers of a kept folder when its kernel is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colabkit.keeping.scanning import Stamp
from colabkit.keeping.version import Version
from colabkit.storage import cache_folder, write_whole

_NOTE = "note.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Remembered:
    """What a session on this machine noted.

    Attributes:
        generation: Which session of all that kept a folder there it was.
        baseline: What was in the folder before, and is not kept until it changes.
        stamps: The stamps of what is on the volume.
    """

    generation: int
    baseline: Mapping[str, Stamp]
    stamps: Mapping[str, Stamp]


@dataclasses.dataclass(frozen=True, slots=True)
class Stranded:
    """A folder that a kernel kept, and that died before it was closed.

    Attributes:
        folder: The folder.
        place: Where it is kept.
        generation: Which session of all that kept a folder there it was.
        how: How it is kept.
    """

    folder: Path
    place: str
    generation: int
    how: Mapping[str, Any]


def stranded_folders() -> list[Stranded]:
    """Returns the folders that sessions on this machine kept, and never closed."""
    found = []
    for note in sorted((cache_folder() / "keeping").glob(f"*/{_NOTE}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            value = json.loads(note.read_bytes())
            if value["is_open"] and Path(value["folder"]).is_dir():
                where = Path(value["folder"]), str(value["place"])
                found.append(Stranded(*where, int(value["generation"]), dict(value["how"])))
    return found


class Notes:
    """The notes of one folder and the place it is kept in.

    Args:
        folder: The kept folder.
        place: What opens the volume again.
        how: How it is kept.
    """

    def __init__(self, folder: Path, place: str, how: Mapping[str, Any]) -> None:
        identity = hashlib.sha256(f"{folder}\n{place}".encode()).hexdigest()[:16]
        self.root = cache_folder() / "keeping" / identity
        self._folder, self._place, self._how = folder, place, how
        self._is_open = True
        self._stamps: Mapping[str, Stamp] = {}
        self._generation = 0
        self._baseline: Mapping[str, Stamp] = {}

    def read(self) -> Remembered | None:
        """Returns what an earlier session noted, None when there was none here."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((self.root / _NOTE).read_bytes())
            return Remembered(
                int(found["generation"]), _stamps(found["baseline"]), _stamps(found["stamps"])
            )
        return None

    def begin(
        self, generation: int, baseline: Mapping[str, Stamp], stamps: Mapping[str, Stamp]
    ) -> None:
        """Notes that a session keeps the folder now."""
        self._generation, self._baseline = generation, baseline
        self._write(stamps)

    def published(self, version: Version, stamps: Mapping[str, Stamp]) -> None:
        """Notes that there is a version of what has these stamps."""
        self._generation = max(self._generation, version.name.generation)
        self._write(stamps)

    def close(self) -> None:
        """Notes that everything is in its place, and that the folder is not kept any more."""
        self._is_open = False
        self._write(self._stamps)

    def _write(self, stamps: Mapping[str, Stamp]) -> None:
        self._stamps = dict(stamps)
        note: dict[str, Any] = {
            "folder": str(self._folder),
            "place": self._place,
            "generation": self._generation,
            "is_open": self._is_open,
            "how": dict(self._how),
            "baseline": dict(self._baseline),
            "stamps": dict(stamps),
        }
        with contextlib.suppress(OSError):
            self.root.mkdir(parents=True, exist_ok=True)
            write_whole(self.root / _NOTE, json.dumps(note).encode(), durable=False)


def _stamps(value: Mapping[str, Any]) -> dict[str, Stamp]:
    return {path: Stamp(*map(int, row)) for path, row in value.items()}
