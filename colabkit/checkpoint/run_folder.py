"""A run folder: its store, the staging area in front of a slow one, and whose it is."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from colabkit.checkpoint.info import CheckpointInfo, LoadedCheckpoint
from colabkit.checkpoint.lease import Lease
from colabkit.checkpoint.manifest import Manifest, Name, corrupt
from colabkit.checkpoint.parts import PartPlace
from colabkit.checkpoint.pieces import Cutter
from colabkit.checkpoint.saver import Saver
from colabkit.checkpoint.snapshot import Section, nbytes_of
from colabkit.checkpoint.staging_area import note_copied, staging_area_of, stranded
from colabkit.checkpoint.status import FoundSave
from colabkit.checkpoint.store import CheckpointStore
from colabkit.checkpoint.tensors import TensorBackend
from colabkit.checkpoint.uploader import Uploader
from colabkit.errors import CheckpointCorruptError, DiskFullError, DriveLostError, StorageError
from colabkit.notebook import bytes_words
from colabkit.storage import (
    DriveMount,
    DriveVolume,
    LocalVolume,
    Uploading,
    Volume,
    attached_runs,
    volume_at,
    warning_about,
)

FindWriters = Callable[[PartPlace], bool]


class Readers(Protocol):
    """The other processes that read a checkpoint with this one."""

    cutter: Cutter
    """What this process wants of tensors in pieces."""

    def read(self, where: str, name: str) -> str | None:
        """Has all read; returns what one finds wrong, "" for nothing, None where one cannot.

        Args:
            where: The folder that it lies in, "" for the run folder by each one's own name.
            name: The checkpoint's name.
        """
        ...


class RunFolder:
    """Opens a run folder; writes nothing until a saver is opened.

    Args:
        path: The folder or the URL given by the user.
        keep: How many of the newest checkpoints to keep.

    Raises:
        StorageError: It is a file.
        DriveLostError: It is on Drive, which is not mounted.
    """

    def __init__(self, path: str | Path, *, keep: int = 2) -> None:
        self._volume = volume_at(path)
        self.warning = warning_about(path)
        self.location = self._volume.location
        self.store = CheckpointStore(self._volume, keep=keep)
        self._keep = keep
        self._staging: CheckpointStore | None = None
        if self._volume.is_slow:
            self._staging = staging_area_of(self._volume, keep=keep)
        self._attached = [
            CheckpointStore(LocalVolume(where)) for where in _attached_to(self._volume)
        ]
        self._brought: list[tuple[CheckpointStore, Manifest]] = []
        if any(name not in self.store.names() for each in self._attached for name in each.names()):
            where = ", ".join(each.volume.location for each in self._attached)
            self.warning = (
                f"This run is attached to the notebook in {where}: it goes on from there."
            )
        self._readers: Readers | None = None
        self._attempt: int | None = None
        self._loaded: list[Manifest] = []
        self._stranded: list[Manifest] = []
        self._found: Manifest | None = None
        self._is_staged = False

    def newest_valid(self, backend: TensorBackend) -> LoadedCheckpoint | None:
        """Returns the newest checkpoint that is whole, on the volume or in the staging area.

        One whose weights are NaN or infinite comes after all that are not, of its attempt.

        Raises:
            CheckpointCorruptError: There are checkpoints, and none is whole.
            StorageError: There are checkpoints, and none can be read at the moment.
            DriveLostError: Drive was lost meanwhile, which says nothing about checkpoints.
        """
        stores = self._stores()
        places = sorted(
            ((name, place) for place, store in enumerate(stores) for name in store.names()),
            key=lambda item: (item[0], -item[1]),
            reverse=True,
        )
        diverged: list[int] = []
        if places and _step_diverged(stores[places[0][1]], places[0][0]) is not None:
            steps = {place: _step_diverged(stores[place[1]], place[0]) for place in places}
            places.sort(key=lambda item: (-item[0].attempt, steps[item] is not None))
            diverged = [step for step in dict.fromkeys(steps.values()) if step is not None]
        skipped: list[tuple[str, str]] = []
        refused: list[StorageError] = []
        for name, place in places:
            try:
                loaded = self._load(stores[place], name, backend)
            except DriveLostError:
                raise
            except (CheckpointCorruptError, StorageError) as error:
                skipped.append((str(name), str(error)))
                if isinstance(error, StorageError):
                    refused.append(error)
                continue
            self._attempt = name.attempt
            manifest = stores[place].manifest(name)
            is_copied = stores[place] is self.store
            self._loaded = [manifest] if is_copied else []
            waiting = [] if is_copied else stranded(stores[place], self.store, manifest)
            is_attached = stores[place] in self._attached
            self._brought = [(stores[place], each) for each in waiting if is_attached]
            self._stranded = [] if is_attached else waiting
            self._found, self._is_staged = manifest, bool(self._stranded)
            is_left_out = loaded.facts.is_finite and places[0][0].attempt == name.attempt
            return dataclasses.replace(
                loaded,
                skipped=tuple(skipped),
                diverged=tuple(diverged) if is_left_out else (),
            )
        if refused:
            # What could not be read says nothing about what was written.
            raise refused[0]
        if skipped:
            message = f"None of the {len(skipped)} checkpoints in {self.location} is whole."
            reasons = "; ".join(reason for _, reason in skipped[:3])
            raise CheckpointCorruptError(
                message,
                path=self.location,
                reason=reasons,
                hint="If Drive still uploads from another session, wait and run again;"
                " resume=False starts anew beside them.",
            )
        return None

    def begin_attempt(self) -> None:
        """Makes the next checkpoints an attempt of their own, beside those there."""
        self._attempt = max((name.attempt for name in self._all_names()), default=0) + 1
        self._loaded, self._stranded, self._brought, self._found = [], [], [], None

    def require_room(self, sections: Sequence[Section], backend: TensorBackend) -> None:
        """Raises DiskFullError unless the volume has room for a checkpoint of this state."""
        needed = nbytes_of(sections, backend)
        free = self._volume.free_bytes()
        if free is None or free > needed:
            return
        message = (
            f"A checkpoint takes {bytes_words(needed)}, and {self.location} has"
            f" {bytes_words(free)} free."
        )
        hint = "Delete what you no longer need there, or pass another ckpt_dir."
        raise DiskFullError(
            message, path=self.location, needed_bytes=needed, free_bytes=free, hint=hint
        )

    def open_saver(
        self,
        backend: TensorBackend,
        *,
        period_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        find: FindWriters | None = None,
    ) -> Saver:
        """Takes the lease on the folder and starts a saver.

        Args:
            backend: The framework's tensors.
            period_s: How often the user wants a save, None for as often as costs nothing.
            clock: Seconds that only grow.
            find: Whether the other processes that are to write parts find a place.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._volume.sweep()
        lease = Lease(self._volume)
        lease.acquire(max((name.generation for name in self._all_names()), default=0))
        self._bring()
        if find is not None:
            self._choose_place(lease, find)
        # A slow volume may show a file before the manifest that names it: it is not swept.
        is_swept = self._staging is not None or not self._volume.is_slow
        if is_swept:
            (self._staging or self.store).sweep()
        return Saver(
            self._staging or self.store,
            backend,
            lease=lease,
            attempt=self._attempt or 1,
            uploader=self._open_uploader(lease, period_s, clock),
            trusted=() if self._staging is not None else self._loaded,
            found=self._found_save(),
            has_swept=is_swept,
            clock=clock,
        )

    def _choose_place(self, lease: Lease, find: FindWriters) -> None:
        """Leaves this machine's disk out where others are to write and see the volume alone."""
        if self._staging is None:
            find(PartPlace("", lease.generation, lease.owner))
            return
        with contextlib.suppress(StorageError):  # nobody finds it then
            lease.leave_in(self._staging.volume)
        where = str(self._staging.volume.root)
        if find(PartPlace(where, lease.generation, lease.owner)) or not self._is_safe_at_once:
            return
        if find(PartPlace("", lease.generation, lease.owner)):
            self._leave_staging_area_out(lease)

    @property
    def _is_safe_at_once(self) -> bool:
        """Whether what is written is there for every machine, and durable, behind the write."""
        volume = self._volume
        return self.mount is None and (
            not isinstance(volume, Uploading) or volume.confirmed(()) is True
        )

    def _leave_staging_area_out(self, lease: Lease) -> None:
        assert self._staging is not None  # noqa: S101  # asked before
        for manifest in self._stranded:
            self.store.copy_from(self._staging, manifest, lease.check)
            note_copied(self._staging, self._volume, manifest.name)
            self._loaded = [manifest]
        self._staging, self._stranded, self._is_staged = None, [], False

    def _open_uploader(
        self, lease: Lease, period_s: float | None, clock: Callable[[], float]
    ) -> Uploader | None:
        if self._staging is None:
            return None
        note_copied(self._staging, self._volume, max(self.store.names(), default=None))
        trusted = {str(manifest.name) for manifest in self._loaded}
        uploader = Uploader(
            self._staging,
            self.store,
            lease=lease,
            trusted=trusted,
            found=None if self._is_staged else self._found,
            keep=self._keep,
            period_s=period_s,
            clock=clock,
        )
        for manifest in self._stranded:
            uploader.enqueue(manifest)
        return uploader

    def _found_save(self) -> FoundSave | None:
        found = self._found
        if found is None:
            return None
        return FoundSave(found.facts.step, found.saved_at, is_staged=self._is_staged)

    def note_saved(self, saver: Saver) -> None:
        """Takes from a saver that is closed what the next one goes on from."""
        if saver.newest is None:
            return
        self._found, uploader = saver.newest, saver.uploader
        committed = uploader.status().committed_step if uploader is not None else None
        self._is_staged = uploader is not None and (committed or 0) < saver.newest.facts.step

    def _all_names(self) -> list[Name]:
        return [name for store in self._stores() for name in store.names()]

    def _stores(self) -> list[CheckpointStore]:
        staged = [] if self._staging is None else [self._staging]
        return [self.store, *staged, *self._attached]

    def _bring(self) -> None:
        """Copies what is gone on from out of an attached input, which nobody can write to."""
        for attached, manifest in self._brought:
            self.store.copy_from(attached, manifest, lambda: None)
            self._loaded = [manifest]
        self._brought = []

    @property
    def mount(self) -> DriveMount | None:
        """The mount of Drive that the folder lies on, None elsewhere."""
        return self._volume.mount if isinstance(self._volume, DriveVolume) else None

    @property
    def staging_location(self) -> str:
        """Where checkpoints wait on this machine's disk, "" when they do not."""
        return self._staging.volume.location if self._staging is not None else ""

    def load(self, info: CheckpointInfo, backend: TensorBackend) -> LoadedCheckpoint:
        """Reads one checkpoint of the volume and verifies every byte."""
        return self._load(self.store, info.name, backend)

    def load_named(self, name: str, backend: TensorBackend) -> LoadedCheckpoint | None:
        """Reads a checkpoint by its name, from wherever it is whole; None where it is not."""
        for store in self._stores():
            with contextlib.suppress(CheckpointCorruptError):
                if name in map(str, store.names()):
                    return self._load(store, name, backend)
        return None

    def read_with(self, readers: Readers | None) -> None:
        """Has other processes read checkpoints in pieces too, each its own pieces."""
        self._readers = readers

    def _load(
        self, store: CheckpointStore, name: Name | str, backend: TensorBackend
    ) -> LoadedCheckpoint:
        found = Name.parse(name) if isinstance(name, str) else name
        readers = self._readers
        if readers is None or found is None or not store.manifest(found).is_in_pieces:
            return store.load(name, backend)
        loaded = store.load(name, backend, readers.cutter)
        problem = readers.read("" if store is self.store else store.volume.location, str(name))
        if problem is None:
            return store.load(name, backend)
        if problem:
            raise corrupt(str(name), problem)
        return loaded

    @property
    def attempt(self) -> int:
        """Number of the attempt that is under way, from 1."""
        return self._attempt or 1

    def publish(self, name: str, data: bytes) -> None:
        """Writes a file beside the checkpoints; it is whole at every instant."""
        self._volume.write(name, [np.frombuffer(data, np.uint8)])

    def publish_table(self, name: str, text: str) -> None:
        """Writes a CSV file beside the checkpoints, where none with other columns lies.

        Raises:
            StorageError: It cannot be written, or is somebody else's: a callback's log, say.
        """
        data = text.encode()
        there = self._volume.read(name).tobytes() if name in self._volume.list(".") else b""
        if there and _first_columns(there) != _first_columns(data):
            path = f"{self._volume.location}/{name}"
            message = f"{path} is not of this run, and stays as it is."
            raise StorageError(message, path=path, operation="write")
        if there != data:
            self.publish(name, data)

    def read(self, name: str) -> bytes | None:
        """Returns a file beside the checkpoints, also of an attached run; None where it is not."""
        folder, _, file = name.rpartition("/")
        for volume in (self._volume, *(each.volume for each in self._attached)):
            if file in volume.list(folder or "."):
                return volume.read(name).tobytes()
        return None

    def list_files(self, folder: str) -> list[str]:
        """Returns the names of the files in a folder beside the checkpoints."""
        return sorted(self._volume.list(folder))

    def remove_files(self, names: Sequence[str]) -> None:
        """Removes files beside the checkpoints."""
        self._volume.delete(names)

    def tidy(self, name: str, text: str) -> None:
        """Sweeps what dead writers left, copies what was stranded here, publishes a small file."""
        self._volume.sweep()
        self._bring()
        for manifest in self._stranded:
            assert self._staging is not None  # noqa: S101  # where the stranded are
            self.store.copy_from(self._staging, manifest, lambda: None)
            note_copied(self._staging, self._volume, manifest.name)
        if names := self.store.names():
            # The lease is not taken: what another session is writing now must stay.
            (self._staging or self.store).sweep(outdone_by=names[0])
        self.publish_table(name, text)

    def names(self) -> list[Name]:
        """Returns the checkpoints on the volume, newest first."""
        return self.store.names()


def _first_columns(table: bytes) -> list[bytes]:
    """Returns the names by which a table of the epochs of a run is known."""
    return table.partition(b"\n")[0].strip().split(b",")[:3]


def _step_diverged(store: CheckpointStore, name: Name) -> int | None:
    """Returns the step of a checkpoint whose weights are NaN or infinite, else None."""
    try:
        facts = store.manifest(name).facts
    except (CheckpointCorruptError, StorageError):
        return None  # reading it tells why
    return None if facts.is_finite else facts.step


def _attached_to(volume: Volume) -> list[Path]:
    """Returns where inputs of this notebook hold the run of an earlier session."""
    return attached_runs(volume.root) if volume.root is not None else []
