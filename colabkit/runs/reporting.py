"""What a loop tells its run: values of steps and epochs, and variables to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from colabkit.errors import ArgumentError
from colabkit.frameworks.processes import speaks_for_all
from colabkit.frameworks.seeding import derive
from colabkit.other_places import OF_A_RUN
from colabkit.runs import checks
from colabkit.runs.boundaries import Boundaries
from colabkit.runs.kept_values import KeptValues
from colabkit.runs.state import Stop


class Reporting(Boundaries):
    """The part of a ``Run`` that takes what a loop has to say."""

    if not TYPE_CHECKING:  # or type checkers would take any name

        def __getattr__(self, name: str) -> Any:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            if told := OF_A_RUN.in_other_words.get(name, ""):
                # Without its name: Python would add one that is only spelled alike.
                message = f"{message}. {told}"
                raise AttributeError(message)
            raise AttributeError(message, name=name, obj=self)

    def log(
        self, given: Mapping[str, Any] | None = None, /, *, weight: float = 1.0, **values: Any
    ) -> None:
        """Notes values of the step under way: numbers or scalar tensors, read later.

        Args:
            given: Values in a dict, as other loggers take them.
            weight: For how much the step counts in the epoch's mean: its samples, say.
            values: Scalars by name.

        Raises:
            ArgumentError: A name is taken, or ``given`` is no dict.
        """
        if given is not None:
            values = {**_named(given), **values}
        # Detached, or each graph would stay in memory until then; and copied, for a sum goes on.
        kept = {n: v.detach().clone() if hasattr(v, "detach") else v for n, v in values.items()}
        self._note_values(kept, weight)

    def _note_values(self, values: Mapping[str, Any], weight: float) -> None:
        checks.require_free_names(values)
        self._log.add(self._position.step, self._position.epoch, values, weight)

    def log_epoch(self, given: Mapping[str, float] | None = None, /, **values: float) -> None:
        """Notes values of the epoch under way, a validation loss for example; see ``log``."""
        if given is not None:
            values = {**_named(given), **values}
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
            values: What each is at the very beginning, by a name that all loops of the program
                share: numbers, strings, tensors, arrays, dicts, lists, deques, random generators,
                and objects with ``state_dict`` and ``load_state_dict``, or ``get_state`` and
                ``set_state``.

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
        kept, known = self._state.kept, {*self._state.kept}
        others = kept.add(values)
        self._state.kept_names.join(only={*kept} - known)
        for name in others:
            self._display.say(
                f"{name} is kept already, and stays {getattr(kept, name)!r}: another variable needs"
                f" another name, run.state({name}_2={values[name]!r}); kept.{name} = changes it."
            )
        return kept

    def stop(self, reason: str = "asked to stop") -> None:
        """Ends the run after the epoch under way."""
        self._state.stop = Stop(reason, self._epochs_total)
        self._display.say(f"Stopping after epoch {self.epoch + 1}: {reason}.")

    def note_stopped_by(self, callback: str) -> None:
        """Notes the class of a callback that has ended the run: without it, the run goes on."""
        if self._state.stop is not None:
            self._state.stop = dataclasses.replace(self._state.stop, by=callback)

    def flush(self) -> None:
        """Waits until the newest save is on the volume."""
        self._checkpoints.flush()

    def reseed(self, *place: int | str) -> None:
        """Puts every random stream where the run's seed, step and a place name."""
        self._adapter.seed(derive(self.seed, "place", self.step, *place))

    def go_on(self, why: str) -> None:
        """Takes back that the run had ended before its last epoch."""
        if self._state.stop is not None:
            self._display.say(
                f"Training on, although it had ended ({self._state.stop.reason}): {why}."
            )
            self._state.stop = None

    def say_done(self) -> None:
        """Says that nothing is left to train, and why."""
        stop = self._state.stop
        if self.is_idle and stop is None:
            self._display.say(
                f"Nothing left to do: {self.epoch} epochs are trained, and epochs counts those of"
                f" all calls on this folder; pass epochs={self.epoch + 1} to train one more."
            )
            return
        self._display.say(
            f"Nothing left to do: {self.epoch} epochs are trained."
            if stop is None
            else f"Nothing left to do: it ended after epoch {self.epoch} ({stop.reason})."
            " Ask for more epochs to train on."
        )


def _named(given: object) -> Mapping[str, Any]:
    if isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
        return given
    message = f"run.log was given {given!r:.40}, which has no name."
    hint = "Write run.log(loss=loss), or pass a dict of values by name."
    raise ArgumentError(message, argument="values", hint=hint)
