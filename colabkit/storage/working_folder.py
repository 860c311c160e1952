"""The folder this process works in, while the mount that it lies on is taken down."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

_logger = logging.getLogger(__name__)


class WorkingFolder:
    """Leaves a folder below a mountpoint, and goes back to the same path once it is there again.

    Whoever works in a folder of a mount keeps it busy, and a program that is started meanwhile
    inherits that folder and keeps it busy in turn.

    Args:
        mountpoint: The mount that may be worked in.
    """

    def __init__(self, mountpoint: Path) -> None:
        self._mountpoint = mountpoint
        self._left: Path | None = None

    def leave(self) -> None:
        """Goes to the root folder, if this process works below the mountpoint."""
        here = _here()
        if here is None and self._left is None:
            here = _here_once()
        if here is not None and here.is_relative_to(self._mountpoint):
            self._left = here
        elif here is not None:
            self._left = None
            return
        if self._left is not None:
            os.chdir("/")

    def go_back(self) -> None:
        """Goes back to the folder that was left, where it is there."""
        if self._left is None or not self._is_away():
            return
        try:
            os.chdir(self._left)
        except OSError:
            self.go_nowhere()
        else:
            self._left = None

    def go_nowhere(self) -> None:
        """Goes to a folder that is no more: what is written by a relative path fails, not strays.

        The mount could not be had again, and this machine's disk must not pass for it.
        """
        if self._left is None or not self._is_away():
            return
        import tempfile  # a mount that is lost for good is rare

        nowhere = tempfile.mkdtemp(prefix="colabkit-drive-is-lost-")
        os.chdir(nowhere)
        with contextlib.suppress(OSError):
            Path(nowhere).rmdir()
        _logger.warning("%s is not there: relative paths lead nowhere until it is.", self._left)

    def _is_away(self) -> bool:
        """Whether nobody has gone elsewhere since the folder was left."""
        here = _here()
        if here is None or here == Path("/"):
            return True
        self._left = None
        return False


def _here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # the folder, or the mount that it lay on, is gone
        return None


def _here_once() -> Path | None:
    """Returns the path of a folder that ``getcwd`` has none for, and that keeps its mount busy.

    One that was removed is such a folder, and one that the mount knows by another number since.
    """
    try:
        return Path(str(Path("/proc/self/cwd").readlink()).removesuffix(" (deleted)"))
    except OSError:  # not Linux
        return None
