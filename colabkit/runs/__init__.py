"""``Run``: a loop of one's own that goes on where it stopped, and what it reports.

Names are loaded when they are first used, so that importing colabkit stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.doors import opened_on_use

if TYPE_CHECKING:
    from colabkit.runs.history import History
    from colabkit.runs.inspect import checkpoints, load
    from colabkit.runs.run import Run
    from colabkit.runs.verdict import ResumeVerdict
    from colabkit.runs.watched import Watched

__all__ = ["History", "ResumeVerdict", "Run", "Watched", "checkpoints", "load"]

__getattr__, __dir__ = opened_on_use(
    __name__,
    {
        "history": "History",
        "inspect": "checkpoints load",
        "run": "Run",
        "verdict": "ResumeVerdict",
        "watched": "Watched",
    },
)
