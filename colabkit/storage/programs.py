"""Runs other programs: found or not, ended or stopped, and what they said."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from colabkit.errors import StorageError
from colabkit.runtime import run_to_end, start_program


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        code: Its exit status, None when it was stopped because its time was up.
        stdout: What it wrote.
        stderr: What it complained of.
    """

    code: int | None
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """The last line it said, which most often is the reason."""
        if self.code is None:
            return "it gave no sign in time"
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1].strip() if lines else f"it ended with status {self.code}"


def is_installed(program: str) -> bool:
    """Whether a program can be started by its name."""
    return shutil.which(program) is not None


def run_program(
    command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> Ended:
    """Runs a program that is installed and waits for its end; it gets nothing to read.

    Args:
        command: The program's name and its arguments.
        timeout_s: After this it is stopped.
        environment: Variables besides those of this process.
    """
    # Files and no pipes: what it leaves in the background would hold a pipe open for ever.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            code = run_to_end(
                command,
                timeout_s=timeout_s,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **(environment or {})},
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
        return Ended(code, _text(stdout), _text(stderr))


@contextlib.contextmanager
def stopped_program(
    command: Sequence[str], *, feeds: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a program whose output is read as it comes; it does not outlive the block.

    Args:
        command: The program's name and its arguments.
        feeds: Whether it is given something to read.
    """
    running = start_program(
        command,
        stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if feeds else subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield running
    finally:
        # Killed before its input ends, or it would take what it has for the whole.
        running.kill()
        for pipe in (running.stdin, running.stdout, running.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        running.wait()


CACHE_HINT = (
    "Set COLABKIT_CACHE to a folder of this machine that you may write to, before anything else:"
    " os.environ['COLABKIT_CACHE'] = '/tmp/colabkit'."
)


def cache_folder() -> Path:
    """Returns where colabkit keeps what may be lost with the machine.

    Raises:
        StorageError: There is no home folder for it.
    """
    chosen = os.environ.get("COLABKIT_CACHE")
    try:
        folder = Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "colabkit"
    except RuntimeError as error:
        message = "This user has no home folder, where colabkit keeps what it works on."
        raise StorageError(message, path="~", operation="find", hint=CACHE_HINT) from error
    return folder.absolute()


def is_in_cache(path: str | Path) -> bool:
    """Whether a path lies where colabkit keeps what may be lost with the machine."""
    return Path(path).absolute().is_relative_to(cache_folder())


def make_in_cache(folder: Path) -> None:
    """Makes a folder in the cache.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = os.strerror(error.errno or 0)
        message = f"colabkit could not make its folder {folder}: {said}."
        raise StorageError(message, path=folder, operation="make", hint=CACHE_HINT) from error


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
