"""Run in several processes: the user's own loop, over modules that the user has wrapped."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.frameworks.base import Feed
from colabkit.frameworks.processes import process_count, require_one_process, speaks_for_all
from colabkit.frameworks.seeding import derive
from colabkit.runs.agreeing import Agreeing
from colabkit.runs.checkpoint_manager import CheckpointManager, CheckpointOptions, Snapshot
from colabkit.runs.options import RunOptions
from colabkit.runs.position import Cursor
from colabkit.runs.run import Run

_WAITED = (
    "gradients waited at a save that layers in pieces had yet to sum: no checkpoint holds them"
)


class RunOfSeveral(Agreeing, Run):
    """What ``Run`` makes where a launcher has started several processes."""

    trains_alone = False
    _making: contextlib.ExitStack
    _engine: Any  # PyTorch's, which alone joins several

    def _begin(self, ckpt_dir: str | Path, options: RunOptions, objects: Mapping[str, Any]) -> None:
        if not speaks_for_all():
            options = dataclasses.replace(
                options, progress=False, tensorboard=False, logger=None, release_when_done=False
            )
        with contextlib.ExitStack() as self._making:
            super()._begin(ckpt_dir, options, objects)
        self._digest = self._adapter.weights_digest  # type: ignore[attr-defined]  # PyTorch's
        self._agree(options)
        provided = f"provided {process_count()} processes go on"
        others = self._adapter.with_names_of_wrappers()  # type: ignore[attr-defined]  # PyTorch's
        self._verdict = self._verdict.adding(notices=(provided, *others))

    def _kept_in(self, ckpt_dir: str | Path, options: CheckpointOptions) -> CheckpointManager:
        joining = getattr(self._adapter, "join_processes", None)
        if joining is None:
            require_one_process("a loop over colabkit.Run without PyTorch")
        else:
            self._world = self._engine = joining()
            self._engine.waits_elsewhere = True  # in the backward pass of the user's own wrapper
            # What fails from here on until the run is made, fails in all.
            self._making.enter_context(self._world.session())
        return super()._kept_in(ckpt_dir, options)

    def is_mid_update(self) -> bool:
        """Whether gradients wait, of which each process may have its own."""
        return self._gathers() and not self._adapter.has_stepped()

    def _gathers(self) -> bool:
        return bool(self._adapter.gathers())  # type: ignore[attr-defined]  # PyTorch's

    def _snapshot(self) -> Snapshot:
        if self._adapter.holds_unsummed():  # type: ignore[attr-defined]  # PyTorch's
            # An optimizer has stepped, or there is none, and a save cannot wait for all of them.
            self._verdict = self._verdict.adding(reasons=(_WAITED,))
        return super()._snapshot()

    @contextlib.contextmanager
    def _session(self) -> Iterator[bool]:
        answered: KeyboardInterrupt | None = None
        # What a loop over batches raises does not come by the loop over epochs around it.
        with self._world.session(is_inner=self._is_open):
            try:
                with super()._session() as is_outermost:
                    yield is_outermost
            except KeyboardInterrupt as interrupt:
                if not self.was_interrupted:
                    raise
                answered = interrupt  # which all have heard of, and none is waited for
        if answered is not None:
            raise answered

    def _close_pass(self, cursor: Cursor, *, on_purpose: bool, is_outermost: bool) -> None:
        if is_outermost and not on_purpose:
            self._engine.tell_left()
        super()._close_pass(cursor, on_purpose=on_purpose, is_outermost=is_outermost)

    def _leave_by_error(self) -> None:
        self._engine.tell_left()
        super()._leave_by_error()

    def _key_of_pass(self, cursor: Cursor) -> int:
        """Returns the seed of a pass: what is drawn in it, each process draws for itself."""
        key = super()._key_of_pass(cursor)
        return key if self._leads else derive(key, "rank", self._world.rank)

    def _check_same_data(self, cursor: Cursor, feed: Feed) -> None:
        super()._check_same_data(cursor, feed)
        is_first = cursor.outermost and cursor.call == 0
        facts = (feed.length, feed.state() is not None, _same_sample(feed) if is_first else "")
        begins_behind = cursor.outermost and self._position.outermost_passed > 0
        here = self._compared() if begins_behind else None
        found = self._world.gather((*facts, here), at="a pass over data")
        lengths, with_state, samples, compared = zip(*found, strict=True)
        self._compare_place(compared)
        if len({*lengths}) > 1:
            message = f"The processes have {', '.join(map(str, lengths))} batches in a pass."
            hint = "Give all as many: torch.utils.data.DistributedSampler does."
            raise ArgumentError(message, argument="data", hint=hint)
        if any(with_state):
            message = "The data is read as a stream, whose place is another in each process."
            hint = "Pass a DataLoader over a Dataset with indices, with a DistributedSampler."
            raise ArgumentError(message, argument="data", hint=hint)
        if len({*samples}) == 1 and samples[0]:
            message = "Every process would train on the same batches."
            line = "DataLoader(dataset, batch_size=..., sampler=DistributedSampler(dataset))"
            raise ArgumentError(message, argument="data", hint=f"Write:  {line}")


def _same_sample(feed: Any) -> str:
    """Returns a hash of the first sample of data that is not shared out, "" of other data."""
    is_whole = hasattr(feed, "parts") and not getattr(feed, "is_shared_out", bool)()
    return str(feed.first_sample()) if is_whole else ""
