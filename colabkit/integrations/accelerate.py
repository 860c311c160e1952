"""For loops with Accelerate: diffusers' and kohya's scripts, and your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate.utils import ProjectConfiguration


def project_in(kept: Any, *, total_limit: int = 2) -> Any:
    """Returns the configuration of an Accelerator whose ``save_state()`` goes into a kept folder.

    Example:
        >>> accelerator = Accelerator(project_config=project_in(kept))  # doctest: +SKIP
    """
    return ProjectConfiguration(
        project_dir=str(kept), automatic_checkpoint_naming=True, total_limit=total_limit
    )


def load_newest(accelerator: Any, kept: Any) -> str | None:
    """Loads the newest whole state, after ``prepare``; returns its folder, None without one.

    Saves are numbered on from there: Accelerate itself would begin at 0 again, and refuse.
    """
    newest: str | None = kept.latest("checkpoints/checkpoint_*")
    if newest is not None:
        accelerator.load_state(newest)
        number = int(Path(newest).name.rpartition("_")[2])
        accelerator.project_configuration.iteration = number + 1
    return newest
