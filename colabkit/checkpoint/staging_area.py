"""The staging area: checkpoints on this machine's disk that are on their way to a slow volume."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from colabkit.checkpoint.lease import Lease
from colabkit.checkpoint.manifest import Manifest, Name
from colabkit.checkpoint.store import CheckpointStore
from colabkit.errors import CheckpointCorruptError, MissingPackageError, StorageError
from colabkit.storage import LocalVolume, Volume, cache_folder, volume_at

_ACCOUNT = "carried.json"


def staging_area_of(volume: Volume, *, keep: int = 2) -> CheckpointStore:
    """Returns the staging area in front of a slow volume."""
    return CheckpointStore(LocalVolume(_staging_areas() / _name_for(volume)), keep=keep)


def note_copied(staging: CheckpointStore, volume: Volume, newest: Name | None) -> None:
    """Writes into the staging area which checkpoint is the newest on its volume."""
    account = {"place": volume.anywhere, "carried": str(newest or "")}
    staging.volume.write(_ACCOUNT, [np.frombuffer(json.dumps(account).encode(), np.uint8)])


def stranded(staging: CheckpointStore, store: CheckpointStore, newest: Manifest) -> list[Manifest]:
    """Returns what must be brought to a volume that lacks the newest: that, after the best.

    Args:
        staging: The checkpoints on the local disk.
        store: The checkpoints on the volume.
        newest: The newest in the staging area.
    """
    best = next((m for m in [newest, *_before(newest, staging)] if m.facts.is_best), newest)
    known = next((m.name for m in _before(newest, store) if m.facts.is_best), None)
    is_known = best is newest or (known is not None and best.name <= known)
    return [newest] if is_known or staging.verify(str(best.name)) else [best, newest]


def _before(newest: Manifest, store: CheckpointStore) -> Iterator[Manifest]:
    """Yields the older checkpoints of the same attempt that can be read, newest first."""
    for name in store.names():
        if name < newest.name and name.attempt == newest.name.attempt:
            with contextlib.suppress(CheckpointCorruptError, StorageError):
                yield store.manifest(name)


def upload_stranded(say: Callable[[str], None]) -> None:
    """Brings over what sessions on this machine have left in their staging areas.

    Args:
        say: Tells the user a sentence.

    Raises:
        StorageError: A volume does not take it: it is on this machine only.
    """
    for account in sorted(_staging_areas().glob(f"*/{_ACCOUNT}")):
        place, copied = _read(account)
        if not place:
            continue
        staging = CheckpointStore(LocalVolume(account.parent))
        for name in staging.names():
            if copied is not None and name <= copied:
                break
            if not staging.verify(str(name)):
                _copy(staging, place, name, say)
                break


def _copy(staging: CheckpointStore, place: str, name: Name, say: Callable[[str], None]) -> None:
    manifest = staging.manifest(name)
    step = manifest.facts.step
    try:
        volume = volume_at(place)
        _require_same(volume, place, staging)
        if Lease(volume).newest_generation() > name.generation:
            return  # another session has gone on from an older one
        store = CheckpointStore(volume)
        for each in stranded(staging, store, manifest):
            store.copy_from(staging, each, lambda: None)
    except (StorageError, MissingPackageError) as error:
        message = f"The checkpoint of step {step:,} of {place} is on this machine only: {error}"
        hint = "The machine is kept. Put that right and call release() again."
        raise StorageError(message, path=place, operation="copy", hint=hint) from error
    note_copied(staging, volume, name)
    say(f"The checkpoint of step {step:,} waited on this machine: it is copied to {place} now.")


def _require_same(volume: Volume, place: str, staging: CheckpointStore) -> None:
    if not volume.is_slow:
        message = f"{place} is on this machine's own disk now: what was mounted there is not."
    elif Path(staging.volume.location).name != _name_for(volume):
        message = f"{place} leads to another Drive now than when the checkpoint was taken."
    else:
        return
    raise StorageError(message, path=place, operation="reach", hint="Mount it again.")


def _read(account: Path) -> tuple[str, Name | None]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(account.read_bytes())
        return str(found["place"]), Name.parse(str(found["carried"]))
    return "", None


def _staging_areas() -> Path:
    return cache_folder() / "spool"


def _name_for(volume: Volume) -> str:
    return hashlib.sha256(volume.identity.encode()).hexdigest()[:16]
