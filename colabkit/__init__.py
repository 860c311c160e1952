"""Resumable training for notebooks that vanish: run all cells again, and it goes on.

Example:
    >>> import colabkit
    >>> history = colabkit.fit(model, data, "runs/cats", epochs=20)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colabkit import errors
    from colabkit.datasets import dataset, pack
    from colabkit.keeping import Kept, keep
    from colabkit.projects import reload, run_script
    from colabkit.session import Session, mount, release, setup, stay_connected
    from colabkit.training import (
        Callback,
        EarlyStopping,
        History,
        ResumeVerdict,
        Run,
        checkpoints,
        fit,
        load,
        verify_resume,
    )

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
    "run_script",
    "setup",
    "stay_connected",
    "verify_resume",
]

_ROOMS = {
    **dict.fromkeys(("dataset", "pack"), "datasets"),
    **dict.fromkeys(("Kept", "keep"), "keeping"),
    **dict.fromkeys(("reload", "run_script"), "projects"),
    **dict.fromkeys(("Session", "mount", "release", "setup", "stay_connected"), "session"),
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("colabkit.errors")
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    room = importlib.import_module(f"colabkit.{_ROOMS.get(name, 'training')}")
    value = getattr(room, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
