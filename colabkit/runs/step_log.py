"""What the steps of an epoch report: kept as handed over, read only when someone looks."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from colabkit.errors import ArgumentError, DivergedError
from colabkit.runs.history import History

_PENDING_MAX = 64
WAY_BACK = (
    "The newest checkpoint whose weights are finite is untouched: look for NaN in the data of that"
    " step, lower the learning rate, or clip the gradients; then run again, and the change is"
    " taken. If the loss had long been growing before, run the cell that makes the model again, and"
    " begin anew with resume=False."
)
_TOO_LATE = (
    "It was so from the first step after the checkpoint, where a lower learning rate comes too"
    " late: look for NaN in the data; else run the cell that makes the model again, and begin anew"
    " with resume=False, which deletes nothing."
)
_FROM_THE_START = (
    "It was so before anything was trained: look for NaN in the data. A model that has diverged in"
    " this session holds NaN until the cell that makes it runs again."
)


class StepLog:
    """Collects each step's values without waiting for the device, and their epoch means.

    Args:
        history: Where the values of each step go.
        to_floats: Reads a list of the framework's scalars in one go.
        must_be_finite: Names whose NaN or infinity ends the run.
    """

    def __init__(
        self,
        history: History,
        to_floats: Callable[[Sequence[Any]], list[float]],
        *,
        must_be_finite: Iterable[str] = (),
    ) -> None:
        self._history = history
        self._to_floats = to_floats
        self._must_be_finite = frozenset(must_be_finite)
        self._pending: list[tuple[int, int, Mapping[str, Any], float]] = []
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self.newest: dict[str, float] = {}
        self._newest_step = -1
        self.samples = 0.0
        self.has_diverged = False
        """Whether a value or a weight became NaN or infinite, which ended the run."""

    def add(self, step: int, epoch: int, values: Mapping[str, Any], weight: float) -> None:
        """Takes one step's values; ``weight`` is the number of samples they stand for."""
        self._pending.append((step, epoch, values, weight))
        self._newest_step = step
        if len(self._pending) >= _PENDING_MAX:
            self.drain()

    def holds(self, step: int) -> bool:
        """Whether anything was noted for a step, the newest one."""
        return self._newest_step == step

    def drain(self) -> None:
        """Reads what is pending into the history and the means.

        Raises:
            DivergedError: At the first value that must be finite and is not.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        names = dict.fromkeys(name for entry in pending for name in entry[2])
        columns = {
            name: iter(self._floats(name, [e[2][name] for e in pending if name in e[2]]))
            for name in names
        }
        for step, epoch, values, weight in pending:
            floats = {name: next(columns[name]) for name in values}
            self._check(step, epoch, floats)
            self._take(step, floats, weight)

    def _floats(self, name: str, values: list[Any]) -> list[float]:
        try:
            return self._to_floats(values)
        except (RuntimeError, TypeError, ValueError) as error:
            wrong = [value for value in values if not _is_scalar(value)]
            if not wrong:
                raise
            form = f" of {list(wrong[0].shape)}" if hasattr(wrong[0], "shape") else ""
            message = f"{name} was logged as a {type(wrong[0]).__name__}{form}, and not a number."
            hint = f"Log one number for each step, such as {name}.mean()."
            raise ArgumentError(message, argument=name, hint=hint) from error

    def _take(self, step: int, floats: dict[str, float], weight: float) -> None:
        self._history.append_step(step, floats)
        self.samples += weight
        for name, value in floats.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * weight
            self._weights[name] = self._weights.get(name, 0.0) + weight
        self.newest.update(floats)

    def _check(self, step: int, epoch: int, floats: Mapping[str, float]) -> None:
        for name in self._must_be_finite & floats.keys():
            if not math.isfinite(floats[name]):
                message = f"The {name} became {floats[name]} at step {step} (epoch {epoch + 1})."
                self.has_diverged = True
                began_so = name not in self.newest
                hint = (_TOO_LATE if step > 0 else _FROM_THE_START) if began_so else WAY_BACK
                raise DivergedError(message, step=step, epoch=epoch, loss=floats[name], hint=hint)

    def means(self) -> dict[str, float]:
        """Returns the weighted means of the epoch so far."""
        return {name: self._sums[name] / (self._weights[name] or 1.0) for name in self._sums}

    def begin_epoch(self) -> None:
        """Forgets the sums of the epoch before."""
        self._sums.clear()
        self._weights.clear()

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums of the epoch under way."""
        return {"sums": dict(self._sums), "weights": dict(self._weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the sums of the epoch under way."""
        self._sums, self._weights = dict(state["sums"]), dict(state["weights"])


def _is_scalar(value: Any) -> bool:
    if hasattr(value, "shape"):
        return bool(math.prod(value.shape) == 1)
    return isinstance(value, numbers.Number)
