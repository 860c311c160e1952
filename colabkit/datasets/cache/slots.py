"""Where a dataset lies on this machine, and what lies beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from colabkit.runtime import Platform, detect_platform

SIDE_NAME = ".colabkit"
_KEPT_CHARACTERS = 60


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """The place of one dataset.

    Everything colabkit notes lies beside the folder, never in it: the folder holds the
    archive's files and nothing else.

    Attributes:
        folder: The published folder.
    """

    folder: Path

    @property
    def side(self) -> Path:
        """The folder of what belongs to this dataset and is not of it."""
        return self.folder.parent / SIDE_NAME / self.folder.name

    @property
    def manifest(self) -> Path:
        """What was published, or is about to be."""
        return self.side / "manifest"

    @property
    def lock(self) -> Path:
        """Held by the one process that works on this dataset."""
        return self.side / "lock"

    @property
    def work(self) -> Path:
        """What is not whole yet."""
        return self.side / "work"

    @property
    def doing(self) -> Path:
        """How far the process that holds the lock is."""
        return self.side / "doing.json"

    @property
    def trash(self) -> Path:
        """What waits to be deleted."""
        return self.folder.parent / SIDE_NAME / ".trash"


def cache_folder(
    platform: Platform | None = None, environ: Mapping[str, str] | None = None
) -> Path:
    """Returns the folder that datasets are unpacked into on this machine.

    Example:
        >>> cache_folder(Platform.COLAB, {})
        PosixPath('/content/datasets')
    """
    environ = os.environ if environ is None else environ
    platform = detect_platform() if platform is None else platform
    if chosen := environ.get("COLABKIT_CACHE"):
        return Path(chosen).expanduser().absolute() / "datasets"
    if platform in {Platform.COLAB, Platform.COLAB_ENTERPRISE}:
        return Path("/content/datasets")
    if platform is Platform.KAGGLE:
        return Path("/kaggle/temp")
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "colabkit" / "datasets"


def slot_for(
    source: str,
    selection: tuple[str, ...] | None,
    dest: str | os.PathLike[str] | None,
    *,
    cache: Path,
) -> Slot:
    """Returns the place of a dataset: ``dest``, or one of its own in the cache.

    Example:
        >>> slot_for("/d/cats.tar.gz", None, None, cache=Path("/content/datasets")).folder.name
        'cats-bf737672'
    """
    if dest is not None:
        return Slot(Path(dest).expanduser().resolve())
    told = hashlib.sha256(json.dumps([source, selection]).encode()).hexdigest()[:8]
    return Slot(cache / f"{_stem(source)}-{told}")


def _stem(source: str) -> str:
    name = re.split(r"[?#]", source.rstrip("/"))[0].rpartition("/")[2]
    name = re.sub(r"(\.(tar|tgz|tbz2?|txz|zip|gz|bz2|xz|zst|7z|rar))+$", "", name, flags=re.I)
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:_KEPT_CHARACTERS] or "dataset"
