"""Wheels kept on a volume: written whole, with their hashes, and checked when they come back."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from colabkit.errors import StorageError
from colabkit.packages.requests import PackageRequest
from colabkit.storage import Bytes, Volume, hash_of, volume_at

_logger = logging.getLogger(__name__)
_FORMAT = 1
_READERS = 4
# Drive's free 15 GB are for checkpoints: a framework's wheels alone would take 3 GB.
REQUEST_BYTES_MAX = 1_000_000_000
ALL_BYTES_MAX = 3_000_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class KeptWheel:
    """A wheel as the list of a request names it.

    Attributes:
        name: Its file name.
        nbytes: Its size.
        hash: The XXH3-128 of its bytes.
        content: What its address led to, as a commit; "" where name and version tell all.
    """

    name: str
    nbytes: int
    hash: str
    content: str = ""

    @property
    def blob(self) -> str:
        """Its name on the volume, another one for other bytes."""
        return f"{self.hash[:12]}~{self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Brought:
    """What came back from the volume.

    Attributes:
        wheels: Those that are whole, in the folder now.
        damaged: The names of those that are not.
    """

    wheels: tuple[KeptWheel, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether all that the list names is here."""
        return bool(self.wheels) and not self.damaged


def machine_tag() -> str:
    """Returns what wheels must fit: Python's version and the platform.

    Example:
        >>> machine_tag().startswith("cp3")
        True
    """
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"cp{sys.version_info.major}{sys.version_info.minor}-{platform}"


def key_of(request: PackageRequest, build: str) -> str:
    """Returns the name of a request's list; the order of its lines does not matter."""
    lines = sorted("".join(line.split()) for line in request.requirements)
    return hash_of(json.dumps([lines, *request.options, build]).encode())[:16]


class Wheelhouse:
    """The wheels kept below a folder of a volume.

    Args:
        place: The folder, as the user would write it.
    """

    def __init__(self, place: str | Path) -> None:
        self._volume: Volume = volume_at(place)
        self._tag = machine_tag()
        self.location = f"{place}/{self._tag}"

    def bring(self, key: str, folder: Path) -> Brought:
        """Copies a request's wheels into a folder; what is not whole is left out.

        Raises:
            StorageError: The volume cannot be read.
        """
        listed = self._listed(key)
        with ThreadPoolExecutor(_READERS, "colabkit-wheels") as readers:
            data = list(readers.map(self._whole, listed))
        for wheel, content in zip(listed, data, strict=True):
            if content is not None:
                (folder / wheel.name).write_bytes(content.data)
        whole = [w for w, content in zip(listed, data, strict=True) if content is not None]
        damaged = [w.name for w, content in zip(listed, data, strict=True) if content is None]
        return Brought(tuple(whole), tuple(damaged))

    def keep(self, key: str, wheels: Mapping[Path, str], known: Sequence[KeptWheel] = ()) -> str:
        """Writes a request's wheels, its list last; returns why not, "" when it was done.

        Args:
            key: Names the request.
            wheels: The files, each with what its address led to, "" where it has none.
            known: Those that lie there whole.

        Raises:
            StorageError: The volume cannot be written, or is full.
        """
        nbytes = sum(wheel.stat().st_size for wheel in wheels)
        if nbytes > REQUEST_BYTES_MAX:
            return f"at {nbytes / 1e9:.1f} GB they are too large to be kept on Drive"
        there = self._volume.list(self._tag)
        if nbytes + sum(there.values()) > ALL_BYTES_MAX:
            return f"{self.location} holds {sum(there.values()) / 1e9:.1f} GB already: empty it"
        listed = [_described(wheel, content) for wheel, content in wheels.items()]
        for wheel, path in zip(listed, wheels, strict=True):
            if wheel not in known:
                data: Bytes = np.fromfile(path, np.uint8)
                self._volume.write(f"{self._tag}/{wheel.blob}", [data])
        value = {"format": _FORMAT, "wheels": [dataclasses.asdict(wheel) for wheel in listed]}
        text = np.frombuffer(json.dumps(value, indent=1).encode(), np.uint8)
        self._volume.write(f"{self._tag}/{_list_name(key)}", [text])
        return ""

    def _listed(self, key: str) -> list[KeptWheel]:
        if _list_name(key) not in self._volume.list(self._tag):
            return []
        try:
            value = json.loads(bytes(self._volume.read(f"{self._tag}/{_list_name(key)}")))
            return [_kept(entry) for entry in value["wheels"]]
        except (ValueError, KeyError, TypeError):
            _logger.warning("The list %s is damaged.", _list_name(key), exc_info=True)
            return []

    def _whole(self, wheel: KeptWheel) -> Bytes | None:
        try:
            data = self._volume.read(f"{self._tag}/{wheel.blob}")
        except StorageError:
            _logger.info("%s could not be read.", wheel.blob, exc_info=True)
            return None
        return data if len(data) == wheel.nbytes and hash_of(data) == wheel.hash else None


def _list_name(key: str) -> str:
    return f"{key}.json"


def _described(path: Path, content: str) -> KeptWheel:
    data: Bytes = np.fromfile(path, np.uint8)
    return KeptWheel(path.name, len(data), hash_of(data), content)


def _kept(entry: Any) -> KeptWheel:
    content = str(entry.get("content", ""))
    wheel = KeptWheel(str(entry["name"]), int(entry["nbytes"]), str(entry["hash"]), content)
    if Path(wheel.name).name != wheel.name or not wheel.name.endswith(".whl"):
        message = f"{wheel.name!r} names no wheel."
        raise ValueError(message)
    return wheel
