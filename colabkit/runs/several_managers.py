"""The checkpoints of several processes: rank 0 reads and writes them, or publishes all's shares.

Where each process holds pieces of the weights, all take a snapshot together: rank 0 calls, as
often as it takes one, and says when it takes no more. Each writes its own pieces, and reads them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colabkit.checkpoint import (
    IN_PIECES,
    CheckpointStore,
    Company,
    FindWriters,
    LoadedCheckpoint,
    PartCall,
    PartPlace,
    PartSaver,
    PieceCompany,
    Posts,
    SaveFacts,
    SaveStatus,
    Section,
    decline,
    store_of_parts,
)
from colabkit.errors import CheckpointCorruptError, ColabKitError
from colabkit.frameworks.base import FrameworkAdapter
from colabkit.frameworks.processes import Processes, process_count
from colabkit.runs.checkpoint_manager import CheckpointManager, Snapshot
from colabkit.runs.other_readers import CANNOT, READ, OtherReaders
from colabkit.runs.own_states import with_own
from colabkit.runs.pieces import cutter_of, is_sharded, leave_in_pieces
from colabkit.storage import RemountResult, volume_at

_NEWEST, _CHOSEN = "the newest checkpoint", "the checkpoint that resume= names"
_SNAPSHOT, _PLACE = "a snapshot", "the place that parts are written to"
_NO_NAME: tuple[str, str] | None = None
_Call = PartCall | PartPlace | str | None
_NO_CALL: _Call = None
_NAMED, _TRAINED = "a checkpoint of an earlier phase", "what the run folder holds"
# How the pieces of weights are taken where no save is shared: made whole, or left as they are.
_WHOLE, _LEFT = "whole", "left in pieces"
# Off, so that rank 0 writes all: with two processes on two cores a save was done sooner, but held
# training two to three times as long (benchmarks.bench_several_saves).
WRITE_TOGETHER = False
# Whether each process writes its pieces of weights, and reads them; else rank 0 does, whole: all
# put each tensor together for it meanwhile, and it needs memory for all of them.
WRITE_PIECES = True
READ_PIECES = True
_logger = logging.getLogger(__name__)


class LeadingManager(CheckpointManager):
    """Rank 0's: what it reads, the others are given."""

    def __init__(self, world: Processes, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._world = self.processes = world
        self._agreed_step = -1
        self._is_alone = False
        self._ahead: tuple[_Call] | None = None
        self._company: Company | None = None
        self._take_alone, self._take = self._take, self._take_with_others

    @property
    def is_taken_by_all(self) -> bool:
        """Whether no process can take a snapshot alone."""
        return is_sharded(self._adapter)

    def _take_with_others(self) -> Snapshot:
        ahead, self._ahead = self._ahead, None
        call = ahead[0] if ahead is not None else self._call()
        if ahead is None and call is not None:
            self._tell(call)
        leave_in_pieces(self._adapter, when=call not in {None, _WHOLE})
        return self._take_alone()

    def _call(self) -> _Call:
        """Returns what the others are told of the snapshot taken next; None to call nobody."""
        company, is_joint = self._company, self.is_taken_by_all
        if self._saver is None:
            return _LEFT if is_joint else None
        if company is None:
            return _WHOLE if is_joint else None
        if self._is_alone and not is_joint:
            company.call_nobody()
            return None
        newest = self._saver.newest
        call = company.call(self._saver.next_name, newest.name if newest is not None else None)
        return call or (_WHOLE if is_joint else None)

    def _tell(self, call: _Call) -> None:
        self._world.gather(call, at=_SNAPSHOT)

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Lets the others wait for its calls, and go on behind."""
        self._ahead = None
        try:
            yield
        finally:
            if may_call(self._adapter) and not self._is_alone:
                self._tell(None)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Calls nobody: after an error the others may be anywhere."""
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False

    def open(self) -> None:
        """Takes the lease on the run folder and starts the saver."""
        with self._calling():
            super().open()
        if self._company is not None:
            self._opened().share_with(self._company)

    def _find_writers(self) -> FindWriters | None:
        is_wanted = WRITE_PIECES if self.is_taken_by_all else WRITE_TOGETHER
        posts, self._company = self._world, None
        if not (is_wanted and isinstance(posts, Posts)):
            return None

        def find(place: PartPlace) -> bool:
            self._tell(place)
            problems = [each for each in self._world.gather("", at=_PLACE) if each]
            if not problems:
                self._company = (PieceCompany if self.is_taken_by_all else Company)(posts)
            elif not place.where:
                _logger.warning("Process 0 writes all of each checkpoint: %s", problems[0])
            return not problems

        return find

    def save(self, step: int, *, wait: bool) -> None:
        """Saves now, whatever the policy says."""
        with self._calling():
            super().save(step, wait=wait)

    def agrees_to_save(self, step: int, *, counts: bool) -> bool:
        """Whether a save is due and can begin; the copies of the weights are compared before."""
        return self.is_due(step, counts=counts) and not self._opened().is_busy

    def expects_to_save(self, step: int, *, in_s: float) -> bool:
        """Whether a save most likely begins at a step, for which the others need not be called."""
        is_free = not (may_call(self._adapter) or self._opened().is_busy)
        return is_free and self.is_due(step, in_s=in_s)

    def note_agreed(self, step: int) -> None:
        """Takes the step at which all have agreed to save, -1 where they have not."""
        self._agreed_step = step

    def call_ahead(self) -> _Call:
        """Returns what the others are told of the save on which all have agreed.

        They hear it where the weights are compared: while savers copy and hash, each meeting holds
        all of them for longer than the snapshot does.
        """
        self._ahead = (self._call(),)
        return self._ahead[0]

    def note_called(self, call: _Call) -> None:
        """Knows what itself has said."""

    def save_if_due(self, step: int, *, counts: bool = False) -> bool:  # noqa: ARG002
        """Begins the save on which the processes have agreed at this step."""
        if step != self._agreed_step or self._ahead is None:
            return False
        self._opened().raise_if_failed()
        return self._offer(step)

    def newest(self) -> LoadedCheckpoint | None:
        """Returns the newest checkpoint that is whole."""
        with self._reading() as readers:
            loaded = super().newest()
        return self._handed(loaded, readers, at=_NEWEST)

    def chosen(self, which: str | int) -> LoadedCheckpoint:
        """Returns the best checkpoint, or that of a step."""
        with self._reading() as readers:
            loaded = super().chosen(which)
        self._handed(loaded, readers, at=_CHOSEN)
        return loaded

    def named(self, name: str) -> LoadedCheckpoint | None:
        """Returns a checkpoint by its name, None where it is not whole any more."""
        with self._reading() as readers:
            loaded = super().named(name)
        return self._handed(loaded, readers, at=_NAMED)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[OtherReaders | None]:
        """Lets the others read what this process reads, and go on behind."""
        readers = OtherReaders(self._world, self._adapter) if reads_apart(self._adapter) else None
        self._folder.read_with(readers)
        try:
            yield readers
        finally:
            self._folder.read_with(None)
            if readers is not None:
                self._world.share(None, at=READ)

    def _handed(
        self, loaded: LoadedCheckpoint | None, readers: OtherReaders | None, *, at: str
    ) -> LoadedCheckpoint | None:
        """Gives the others a checkpoint, but for what they have read themselves."""
        is_there = loaded is not None and readers is not None and readers.newest == loaded.info.name
        given = dataclasses.replace(loaded, sections={}) if loaded and is_there else loaded
        self._world.share(given, at=at)
        return loaded

    def has_trained(self) -> bool:
        """Whether any checkpoint holds more than the first weights."""
        return self._world.share(super().has_trained(), at=_TRAINED)


class FollowingManager(CheckpointManager):
    """What every other process has: the checkpoints that rank 0 reads, and nothing to write.

    Args:
        ckpt_dir: The run folder.
        adapter: The framework's adapter.
        world: The processes.
    """

    def __init__(self, ckpt_dir: str | Path, adapter: FrameworkAdapter, world: Processes) -> None:
        self.location, self.warning = str(ckpt_dir), ""
        self._adapter = adapter
        self._world = self.processes = world
        self._agreed_step = -1
        self._ahead: _Call = None
        self._store: CheckpointStore | None = None
        self._writer: PartSaver | None = None

    @property
    def folder(self) -> Any:
        """Nothing: the folder is rank 0's."""
        return None

    @property
    def counts_steps(self) -> bool:
        """Whether every step must be looked at: rank 0 says so."""
        return False

    @property
    def wait_s(self) -> float:
        """Seconds that saves have held the training thread."""
        return 0.0

    def newest(self) -> LoadedCheckpoint | None:
        """Returns what rank 0 has read."""
        return self._given(at=_NEWEST)

    def chosen(self, which: str | int) -> LoadedCheckpoint:  # noqa: ARG002  # rank 0's word counts
        """Returns what rank 0 has read."""
        loaded: Any = self._given(at=_CHOSEN)
        assert isinstance(loaded, LoadedCheckpoint)  # noqa: S101  # rank 0 raises otherwise
        return loaded

    def named(self, name: str) -> LoadedCheckpoint | None:  # noqa: ARG002  # rank 0's word counts
        """Returns what rank 0 has read."""
        return self._given(at=_NAMED)

    def _given(self, *, at: str) -> LoadedCheckpoint | None:
        """Reads its pieces where rank 0 says so, and takes the rest from there."""
        own: LoadedCheckpoint | None = None
        if reads_apart(self._adapter):
            while (asked := self._world.share(_NO_NAME, at=READ)) is not None:
                own, problem = self._read(*asked)
                self._world.gather(problem, at=READ)
        loaded: LoadedCheckpoint | None = self._world.share(None, at=at)
        if loaded is None:
            return None
        sections = loaded.sections if loaded.sections or own is None else own.sections
        sections = with_own(sections, self._world.rank, process_count())
        return dataclasses.replace(loaded, sections=sections)

    def _read(self, where: str, name: str) -> tuple[LoadedCheckpoint | None, str]:
        """Returns its part of a checkpoint, or why it has none."""
        try:
            store = CheckpointStore(volume_at(where or self.location))
            if name not in map(str, store.names()):
                return None, CANNOT
            return store.load(name, self._adapter.backend, cutter_of(self._adapter)), ""
        except CheckpointCorruptError as error:
            return None, str(error)
        except (ColabKitError, OSError):
            return None, CANNOT

    def has_trained(self) -> bool:
        """Returns what rank 0 has found."""
        return bool(self._world.share(None, at=_TRAINED))

    @property
    def is_taken_by_all(self) -> bool:
        """Whether no process can take a snapshot alone."""
        return is_sharded(self._adapter)

    def _follow(self) -> None:
        """Takes part in each snapshot that rank 0 calls for."""
        while may_call(self._adapter):
            call = self._world.gather(_NO_CALL, at=_SNAPSHOT)[0]
            if call is None:
                return
            self._answer(call)

    def _answer(self, call: PartCall | PartPlace | str) -> None:
        """Does what rank 0 has called for."""
        if isinstance(call, PartPlace):
            self._world.gather(self._looked_for(call), at=_PLACE)
            return
        leave_in_pieces(self._adapter, when=call != _WHOLE)
        if isinstance(call, PartCall):
            self._write_part(call)
        else:
            self._adapter.sections()

    def _looked_for(self, place: PartPlace) -> str:
        """Takes the place that parts are written to; returns why it cannot, "" where it can."""
        try:
            self._store = store_of_parts(self.location, place)
        except (ColabKitError, OSError) as error:
            return f"process {self._world.rank} on {socket.gethostname()}: {error}"
        return ""

    def _write_part(self, call: PartCall) -> None:
        posts = self._world
        assert isinstance(posts, Posts)  # noqa: S101  # rank 0 does not call otherwise
        # All take the sections of pieces, some of which may be put together.
        sections = self._adapter.sections() if call.agreed == IN_PIECES else None
        try:
            if self._writer is None:
                assert self._store is not None  # noqa: S101  # else nobody calls
                self._writer = PartSaver(self._store, self._adapter.backend, posts)
            if self._writer.begin(call):
                self._offer_to(self._writer, sections or self._adapter.sections())
        except Exception as error:  # noqa: BLE001  # rank 0 can do without
            decline(posts, call, f"{type(error).__name__}: {error}")

    def _offer_to(self, writer: PartSaver, sections: list[Section]) -> None:
        writer.offer(
            [dataclasses.replace(each, noted={}) for each in sections],
            SaveFacts(step=self._world.step),
            is_guarded=self._adapter.guard(),
            still_valid=self._adapter.unchanged(),
        )

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Calls nobody, as ever."""
        return contextlib.nullcontext()

    def finish_copying(self) -> None:
        """Waits until the snapshot under way no longer needs the tensors."""
        if self._writer is not None and self._writer.copying:
            self._writer.barrier()

    def open(self) -> None:
        """Watches the optimizers."""
        self._follow()
        self._adapter.open(self.finish_copying)

    def close(self) -> SaveStatus | None:
        """Finishes its part of the save under way, and stops watching."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None and writer.copying:
                writer.barrier()
        finally:
            self._adapter.close()
            if writer is not None:
                writer.close()
        return None

    def status(self) -> SaveStatus | None:
        """Returns None: what is saved is rank 0's to say."""
        return None

    def agrees_to_save(self, step: int, *, counts: bool) -> bool:  # noqa: ARG002
        """Asks for nothing."""
        return False

    def expects_to_save(self, step: int, *, in_s: float) -> bool:  # noqa: ARG002
        """Expects nothing."""
        return False

    def note_agreed(self, step: int) -> None:
        """Takes the step at which all have agreed to save, -1 where they have not."""
        self._agreed_step = step

    def call_ahead(self) -> _Call:
        """Calls nobody, as ever."""
        return None

    def note_called(self, call: _Call) -> None:
        """Takes what rank 0 has said of the save on which all have agreed."""
        self._ahead = call

    def save_if_due(self, step: int, *, counts: int | bool = False) -> bool:  # noqa: ARG002
        """Gives its part to what rank 0 saves, where the processes have agreed on a save."""
        call, self._ahead = self._ahead, None
        if step == self._agreed_step and call is not None:
            self._answer(call)
        return False

    def save(self, step: int, *, wait: bool) -> None:  # noqa: ARG002
        """Gives its part to what rank 0 saves."""
        self._follow()

    def flush(self) -> None:
        """Waits for nothing."""

    def remount(self, *, now: bool = False) -> RemountResult | None:  # noqa: ARG002
        """Mends nothing."""
        return None

    def begin_attempt(self) -> None:
        """Leaves the folder alone."""

    def publish_history(self, csv_text: str) -> None:
        """Leaves the folder alone."""

    def tidy(self, csv_text: str) -> None:
        """Leaves the folder alone."""

    def forget_place(self) -> None:
        """Keeps no place."""


def may_call(adapter: FrameworkAdapter) -> bool:
    """Whether rank 0 calls the others to snapshots at all."""
    return WRITE_TOGETHER or is_sharded(adapter)


def reads_apart(adapter: FrameworkAdapter) -> bool:
    """Whether each process reads its own pieces."""
    return READ_PIECES and is_sharded(adapter)
