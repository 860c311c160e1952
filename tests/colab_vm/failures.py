"""What the double itself did wrong, which FUSE tells a program as EINVAL: no answer of Drive's."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger("colab_vm")
_LOGGERS = ("colab_vm", "fuse")


class Failures(logging.Handler):
    """Writes uncaught exceptions beside the cloud's files, where they outlive the machine."""

    def __init__(self, cloud: Path) -> None:
        super().__init__(logging.ERROR)
        self._path = cloud / "failures.txt"

    def collect(self) -> None:
        """Begins to write down what the FUSE library and the double's own threads report."""
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        with self._path.open("a") as file:
            file.write(f"{self.format(record)}\n")

    def said(self) -> str | None:
        """Returns all that was written down, None when that is nothing."""
        return self._path.read_text() if self._path.exists() else None

    def check(self) -> None:
        """Raises AssertionError if anything was."""
        if said := self.said():
            msg = f"the double itself failed: {said}"
            raise AssertionError(msg)
