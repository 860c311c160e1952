"""The spool: checkpoints on this machine's disk that are on their way to a slow volume."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from colabkit.checkpoint.lease import Lease
from colabkit.checkpoint.manifest import Name
from colabkit.checkpoint.store import CheckpointStore
from colabkit.errors import MissingPackageError, StorageError
from colabkit.storage import AnyVolume, LocalVolume, Volume, cache_folder, volume_at

_ACCOUNT = "carried.json"


def spool_of(volume: Volume, *, keep: int = 2) -> CheckpointStore:
    """Returns the spool in front of a slow volume."""
    name = hashlib.sha256(_place(volume).encode()).hexdigest()[:16]
    return CheckpointStore(LocalVolume(_spools() / name), keep=keep)


def note_carried(spool: CheckpointStore, volume: Volume, newest: Name | None) -> None:
    """Writes into the spool which checkpoint is the newest on its volume."""
    account = {"place": _place(volume), "carried": str(newest or "")}
    spool.volume.write(_ACCOUNT, [np.frombuffer(json.dumps(account).encode(), np.uint8)])


def carry_stranded(say: Callable[[str], None]) -> None:
    """Brings over what sessions on this machine have left in their spools.

    Args:
        say: Tells the user a sentence.

    Raises:
        StorageError: A volume does not take it: it is on this machine only.
    """
    for account in sorted(_spools().glob(f"*/{_ACCOUNT}")):
        place, carried = _read(account)
        if not place:
            continue
        spool = CheckpointStore(LocalVolume(account.parent))
        for name in spool.names():
            if carried is not None and name <= carried:
                break
            if not spool.verify(str(name)):
                _carry(spool, place, name, say)
                break


def _carry(spool: CheckpointStore, place: str, name: Name, say: Callable[[str], None]) -> None:
    manifest = spool.manifest(name)
    step = manifest.facts.step
    try:
        volume = volume_at(place)
        _require_slow(volume, place)
        if Lease(volume).newest_generation() > name.generation:
            return  # another session has gone on from an older one
        CheckpointStore(volume).copy_from(spool, manifest, lambda: None)
    except (StorageError, MissingPackageError) as error:
        message = f"The checkpoint of step {step:,} of {place} is on this machine only: {error}"
        hint = "The machine is kept. Put that right and call release() again."
        raise StorageError(message, path=place, operation="copy", hint=hint) from error
    note_carried(spool, volume, name)
    say(f"The checkpoint of step {step:,} waited on this machine: it is copied to {place} now.")


def _require_slow(volume: AnyVolume, place: str) -> None:
    if volume.is_slow:
        return
    message = f"{place} is a folder on this machine's own disk now: what was mounted there is not."
    raise StorageError(message, path=place, operation="reach", hint="Mount it again.")


def _read(account: Path) -> tuple[str, Name | None]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(account.read_bytes())
        return str(found["place"]), Name.parse(str(found["carried"]))
    return "", None


def _spools() -> Path:
    return cache_folder() / "spool"


def _place(volume: Volume) -> str:
    return str(volume.root.absolute()) if isinstance(volume, LocalVolume) else volume.location
