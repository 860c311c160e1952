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
    "ResumeVerdict",
    "Run",
    "__version__",
    "checkpoints",
    "dataset",
    "errors",
    "fit",
    "load",
    "pack",
    "verify_resume",
]

_OF_DATASETS = frozenset({"dataset", "pack"})


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("colabkit.errors")
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    home = "colabkit.datasets" if name in _OF_DATASETS else "colabkit.training"
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
