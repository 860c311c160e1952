"""Training that goes on where it stopped: ``fit``, ``Run``, and what they report.

Names are loaded when they are first used, so that importing colabkit stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

_MODULES = {
    "Callback": "callbacks",
    "EarlyStopping": "callbacks",
    "History": "records",
    "ResumeVerdict": "verdict",
    "Run": "loop",
    "Watched": "watched",
    "checkpoints": "opening",
    "fit": "fitting",
    "load": "opening",
    "verify_resume": "proof",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
