"""The processes that read a checkpoint in pieces together, each its own, seen by rank 0."""

from __future__ import annotations

from colabkit.checkpoint import Cutter
from colabkit.frameworks.base import FrameworkAdapter
from colabkit.frameworks.processes import Processes
from colabkit.runs.pieces import cutter_of

READ, CANNOT = "a checkpoint to read together", "cannot read it"


class OtherReaders:
    """The other processes, each of which reads its pieces of a checkpoint that rank 0 names.

    Attributes:
        newest: The last one that all have read.
    """

    def __init__(self, world: Processes, adapter: FrameworkAdapter) -> None:
        self._world = world
        self.cutter: Cutter = cutter_of(adapter)
        self.newest = ""

    def read(self, where: str, name: str) -> str | None:
        """Has all read; returns what one finds wrong, "" for nothing, None where one cannot."""
        self._world.share((where, name), at=READ)
        problems = [each for each in self._world.gather("", at=READ) if each]
        if CANNOT in problems:
            return None
        self.newest = "" if problems else name
        return problems[0] if problems else ""
