"""Resumable training for notebooks that vanish: run all cells again, and it goes on.

Example:
    >>> import colabkit
    >>> history = colabkit.fit(model, data, "runs/cats", epochs=20)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.doors import opened_on_use

if TYPE_CHECKING:
    from colabkit import errors
    from colabkit.datasets import dataset, pack
    from colabkit.fitting import Callback, EarlyStopping, fit, verify_resume
    from colabkit.keeping import Kept, keep
    from colabkit.projects import reload, run, run_script
    from colabkit.runs import History, ResumeVerdict, Run, checkpoints, load
    from colabkit.session import Session, mount, release, setup, stay_connected

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "EarlyStopping",
    "History",
    "Kept",
    "ResumeVerdict",
    "Run",
    "Session",
    "__version__",
    "checkpoints",
    "dataset",
    "errors",
    "fit",
    "keep",
    "load",
    "mount",
    "pack",
    "release",
    "reload",
    "run",
    "run_script",
    "setup",
    "stay_connected",
    "verify_resume",
]

__getattr__, __dir__ = opened_on_use(
    __name__,
    {
        "": "errors",
        "datasets": "dataset pack",
        "fitting": "Callback EarlyStopping fit verify_resume",
        "keeping": "Kept keep",
        "projects": "reload run run_script",
        "runs": "History ResumeVerdict Run checkpoints load",
        "session": "Session mount release setup stay_connected",
    },
    elsewhere="colabkit.other_places.OF_COLABKIT",
)
