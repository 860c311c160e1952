"""What a run takes besides its folder and its objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from colabkit.runs.checks import require_flag
from colabkit.runs.news import News


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The arguments of ``Run``, which says what each means."""

    seed: int | None = None
    save_every: str | int | None = "auto"
    keep: int = 2
    monitor: str | None = None
    resume: bool | str | int = True
    data_changed: str = "error"
    progress: bool = True
    tensorboard: bool = False
    logger: Any = None
    release_when_done: bool = False
    must_be_finite: Sequence[str] = ()
    max_steps: int | None = None
    max_time: str | float | None = None
    phase: str | None = None
    save_base: bool = False
    news: News = dataclasses.field(default_factory=News)

    def __post_init__(self) -> None:
        for name in ("progress", "release_when_done", "save_base"):
            require_flag(name, getattr(self, name))

    def settings(self) -> dict[str, Any]:
        """Returns what decides which epoch is the best, and when a session ends, in words."""
        names = ("monitor", "max_steps", "max_time")
        return {name: getattr(self, name) or "none" for name in names}
