"""What becomes of the machine when a run is over."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from colabkit.errors import MachineReleaseError, StorageError
from colabkit.keeping import upload_all
from colabkit.notebook import Printed, Silent
from colabkit.storage import give_back


class Trained(Protocol):
    """What is asked of a run that is over."""

    was_interrupted: bool
    """Whether it ended before its end."""

    has_trained: bool
    """Whether a step was trained in this session."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReleaseWhenDone:
    """Gives a machine back after a run that came to its end here.

    Attributes:
        wanted: Whether the user asked for it.
        shown: Whether to say what happens.
    """

    wanted: bool
    shown: bool

    def finish(self, run: Trained) -> None:
        """Gives the machine back, unless the run was interrupted or had nothing left to do.

        The training is done and saved by now: what stands in the way is said, not raised.
        """
        if not self.wanted or run.was_interrupted:
            return
        say = (Printed() if self.shown else Silent()).say
        if not run.has_trained:
            say("Nothing was trained here: the machine is kept; colabkit.release() returns it.")
            return
        try:
            give_back(say=say, upload=upload_all)
        except (StorageError, MachineReleaseError) as error:
            say(f"The machine is kept: {error}")
