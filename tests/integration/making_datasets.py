"""Calls of dataset() in processes of their own, which may be killed at any instant."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = """
import sys, time
import colabkit
colabkit.dataset  # what is loaded lazily is loaded before the clock starts
print("ready", flush=True)
sys.stdin.readline()
path = colabkit.dataset({source!r}, {dest!r}, progress={progress}, **{options!r})
print("done", path, flush=True)
sys.stdin.readline()
"""


class Caller:
    """A process that calls dataset() when told to, and lives on until it is told to end.

    Args:
        source: What the dataset is made from.
        dest: The folder to make.
        progress: Whether it says what it does.
        options: Further arguments.
    """

    def __init__(
        self,
        source: Path | Sequence[Path],
        dest: Path | None,
        *,
        progress: bool = False,
        cache: Path | None = None,
        **options: object,
    ) -> None:
        sources = [str(one) for one in source] if isinstance(source, list) else str(source)
        program = _PROGRAM.format(
            source=sources,
            dest=None if dest is None else str(dest),
            progress=progress,
            options=options,
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | ({} if cache is None else {"COLABKIT_CACHE": str(cache)}),
        )
        assert self.line() == "ready"

    def go(self) -> None:
        """Lets it call."""
        self._say()

    def line(self) -> str:
        """Returns the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()

    def lines_until_done(self) -> list[str]:
        """Returns what it said until its call was over."""
        said = []
        while not (line := self.line()).startswith("done "):
            if not line and self.process.poll() is not None:
                assert self.process.stderr is not None
                raise AssertionError(self.process.stderr.read())
            said.append(line)
        return said

    def kill(self) -> None:
        """Kills it."""
        self.process.kill()
        self._reap()

    def end(self) -> None:
        """Lets it end by itself."""
        self._say()
        self._reap()
        assert self.process.returncode == 0

    def _say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _reap(self) -> None:
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
