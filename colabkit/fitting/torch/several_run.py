"""``fit`` in several processes, each of which takes a part of every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colabkit.fitting.torch.fit_run import TorchRun
from colabkit.frameworks.processes import Processes
from colabkit.runs.agreeing import Agreeing
from colabkit.runs.options import RunOptions
from colabkit.runs.own_states import Where


class SeveralRun(Agreeing, TorchRun):
    """The same run, in step with those of the other processes.

    Args:
        world: The processes.
        options: As for ``Run``; the processes that follow show and publish nothing.
        kwargs: As for ``TorchRun``.
    """

    # Whoever sums the gradients gives them to all before each group of batches.
    _shares_buffers = frozenset({"model"})
    # It is saved between two of those groups, behind which they are summed.
    _shares_gradients = True

    def __init__(
        self,
        world: Processes,
        ckpt_dir: str | Path,
        options: RunOptions,
        objects: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        self._world = world
        super().__init__(ckpt_dir, options, objects, **kwargs)
        self._agree(options)

    def _matters(self, path: Where) -> bool:
        # Callbacks change the model as process 0's do, or the processes come apart.
        return not (path[1] in {"others", "held"} and "callback " in str(path[2]))

    def note_trained(self) -> None:
        super().note_trained()
        if not self.is_over:
            at = f"what is trained by step {self.step:,}"
            self._compare_place(self._world.gather(self._compared(), at=at))

    def agreed_logs(self) -> dict[str, float]:
        """Returns the values of the epoch that rank 0 has, by which schedules go."""
        return self._world.share(self.epoch_logs, at="the values of an epoch")

    def agree_on_end(self) -> None:
        """Waits for the others, so that an error after the last step is one in all."""
        self._world.share(None, at="the end of a call")

    def _end_session(self) -> None:
        # Where all is trained the others come to the end of the call, and wait for this process:
        # a SIGTERM of its own, which came with the last save or later, ends it behind that.
        self._interrupts.stays = self._is_at_an_end() and not (self.is_over or self.was_interrupted)
        super()._end_session()

    def check_data(self, feeds: Sequence[Any]) -> bool:
        """Compares the data of rank 0 with what the run was trained on; all hear what follows."""
        begins = super().check_data(feeds) if self._leads else False
        begins = self._world.share(begins, at="the data of a call")
        if begins and not self._leads:
            self.turns_to_other_data()
        return begins
