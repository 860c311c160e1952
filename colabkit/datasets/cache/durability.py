"""How long to wait for a disk: what a crash of the machine may take, and what is seen of it."""

from __future__ import annotations

import contextlib
import enum
import os
from pathlib import Path

from colabkit.datasets.cache.checking import boot_id
from colabkit.runtime import detect_platform


class Durability(enum.Enum):
    """What is waited for before a dataset gets its name."""

    NONE = "nothing: the disk goes with the machine"
    MANIFEST = "the manifest: after a crash every file is read and compared with it"
    ALL = "every byte: nothing would tell that the machine went down"


def durability_here() -> Durability:
    """Returns what to wait for on this machine."""
    if detect_platform().is_hosted:
        return Durability.NONE
    return Durability.MANIFEST if boot_id() else Durability.ALL


def sync_file_system(folder: Path) -> None:
    """Waits until everything written to a folder's file system is durable."""
    import ctypes  # a hosted machine waits for nothing

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Waits until a folder's names are durable, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
