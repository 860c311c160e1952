"""The checkpoints of a run folder as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from colabkit.checkpoint.info import CheckpointInfo
from colabkit.notebook import html_table, text_table, themed

_COLUMNS = ("epochs done", "step", "phase", "saved", "MB", "state", "values")


class CheckpointList(list[CheckpointInfo]):
    """Checkpoints, the newest first; a notebook shows them as a table.

    Args:
        infos: The checkpoints.
        is_verified: Whether every byte of them was read.

    Example:
        >>> CheckpointList()
        <no checkpoints>
    """

    def __init__(self, infos: Iterable[CheckpointInfo] = (), *, is_verified: bool = False) -> None:
        super().__init__(infos)
        self.is_verified = is_verified

    def __repr__(self) -> str:
        if not self:
            return "<no checkpoints>"
        return f"{_title(len(self))}\n{text_table(self._rows(), columns=self._columns())}"

    def _repr_html_(self) -> str:
        table = html_table(self._rows(), columns=self._columns()) if self else ""
        return themed(f'<div class="ck-title">{_title(len(self))}</div>{table}')

    def _columns(self) -> list[str]:
        has_phases = any(info.phase for info in self)
        return [name for name in _COLUMNS if has_phases or name != "phase"]

    def _rows(self) -> list[Mapping[str, object]]:
        return [
            {
                "epochs done": _place_words(info),
                "step": f"{info.step:,}",
                "phase": info.phase,
                "saved": f"{info.saved_at:%Y-%m-%d %H:%M:%S} UTC",
                "MB": f"{info.nbytes / 1e6:,.1f}",
                "values": ", ".join(f"{n} {v:.4g}" for n, v in info.metrics.items()),
                "state": self._state_words(info),
            }
            for info in self
        ]

    def _state_words(self, info: CheckpointInfo) -> str:
        if info.problem:
            return info.problem
        # An older one was the best of its time; load(..., "best") takes the newest of them.
        best = next((each for each in self if each.is_best and not each.problem), None)
        return ("whole" if self.is_verified else "listed") + (", best" if info is best else "")


def _place_words(info: CheckpointInfo) -> str:
    return f"{info.epoch}" + (f" + {info.batch:,} batches" if info.batch else "")


def _title(count: int) -> str:
    if count == 0:
        return "No checkpoints"
    return "1 checkpoint" if count == 1 else f"{count} checkpoints, the newest first"
