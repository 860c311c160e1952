"""Training that goes on where it stopped: ``fit``, ``Run``, and what they report.

Names are loaded when they are first used, so that importing colabkit stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.doors import opened_on_use

if TYPE_CHECKING:
    from colabkit.training.callbacks import Callback, EarlyStopping
    from colabkit.training.fitting import fit
    from colabkit.training.loop import Run
    from colabkit.training.opening import checkpoints, load
    from colabkit.training.proof import verify_resume
    from colabkit.training.records import History
    from colabkit.training.verdict import ResumeVerdict
    from colabkit.training.watched import Watched

__all__ = [
    "Callback",
    "EarlyStopping",
    "History",
    "ResumeVerdict",
    "Run",
    "Watched",
    "checkpoints",
    "fit",
    "load",
    "verify_resume",
]

__getattr__, __dir__ = opened_on_use(
    __name__,
    {
        "callbacks": "Callback EarlyStopping",
        "fitting": "fit",
        "loop": "Run",
        "opening": "checkpoints load",
        "proof": "verify_resume",
        "records": "History",
        "verdict": "ResumeVerdict",
        "watched": "Watched",
    },
)
