"""What a loop tells its run: values of steps and epochs, and variables to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colabkit.frameworks.processes import speaks_for_all
from colabkit.runs import checks
from colabkit.runs.boundaries import Boundaries
from colabkit.runs.kept_values import KeptValues


class Reporting(Boundaries):
    """The part of a ``Run`` that takes what a loop has to say."""

    def log(self, *, weight: float = 1.0, **values: Any) -> None:
        """Notes values of the step under way: numbers or scalar tensors, read later.

        Args:
            weight: For how much the step counts in the epoch's mean: its samples, say.
            values: Scalars by name.
        """
        # Detached, or each graph would stay in memory until then; and copied, for a sum goes on.
        kept = {n: v.detach().clone() if hasattr(v, "detach") else v for n, v in values.items()}
        self._note_values(kept, weight)

    def _note_values(self, values: Mapping[str, Any], weight: float) -> None:
        checks.require_free_names(values)
        self._log.add(self._position.step, self._position.epoch, values, weight)

    def log_epoch(self, **values: float) -> None:
        """Notes values of the epoch under way, a validation loss for example."""
        checks.require_free_names(values)
        self._state.epoch_values.update(values)

    def show(self, images: Any, *, name: str = "images") -> None:
        """Shows images of the step under way in the panel, and writes them as a PNG.

        They lie side by side in ``images/NAME-STEP.png`` of the run folder, 64 at most; the newest
        50 files of a name stay. Outside notebooks they are only written.

        Args:
            images: An array or tensor [N, H, W], [N, H, W, C] or [N, C, H, W], of numbers from 0
                to 1 or uint8, with 1, 3 or 4 channels; or a list of images of one size.
            name: Tells several pictures of a step apart.

        Raises:
            ArgumentError: They are no images, or ``name`` is no name.

        Example:
            >>> import tempfile, numpy, colabkit
            >>> run = colabkit.Run(tempfile.mkdtemp(), progress=False)
            >>> for item in run.items(range(2)):
            ...     run.show(images=numpy.zeros((4, 8, 8)))
        """
        if speaks_for_all():
            self._pictures.show(images, name=name, step=self.step)

    def state(self, **values: Any) -> KeptValues:
        """Keeps plain variables of a loop with its checkpoints; a resume gives them back.

        Args:
            values: What each is at the very beginning, by name: numbers, strings, tensors,
                arrays, dicts, lists, deques, random generators, and objects with
                ``state_dict`` and ``load_state_dict``, or ``get_state`` and ``set_state``.

        Returns:
            The values as attributes. A checkpoint holds what they are at its step, so change
            them before the step's end: ``kept.best = 0.9``.

        Raises:
            ArgumentError: A value cannot be stored.

        Example:
            >>> import tempfile, colabkit
            >>> run = colabkit.Run(tempfile.mkdtemp(), progress=False)
            >>> kept = run.state(best=0.0, seen=[])
            >>> for item in run.items([3.0, 5.0, 4.0]):
            ...     kept.best = max(kept.best, item)
            ...     kept.seen.append(item)
            >>> kept.best
            5.0
        """
        self._state.kept.add(values)
        return self._state.kept
